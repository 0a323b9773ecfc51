"""Names in a sandbox's run directory, and what the supervisor writes there: sizes and ids, nothing secret."""

import os
import stat
from pathlib import Path
from typing import Final

from pydantic import BaseModel

CONTROL: Final = "control.sock"
LOG: Final = "supervisor.log"
VMM: Final = "vm"


def write(file: Path, model: BaseModel) -> None:
    """Write `model` as JSON in one step: a reader sees the old text or the new one."""
    new = file.with_suffix(".new")
    new.write_text(model.model_dump_json())
    os.replace(new, file)


class Farewell(BaseModel):
    """Why a supervisor ended by itself."""

    why: str


FAREWELL: Final = "farewell.json"
SILENT: Final = "the supervisor died without a word"
MAX_WORDS: Final = 4096


def why(directory: Path) -> str:
    """Why the supervisor of this run directory is gone, by its own last word or else in general terms.

    The directory is the supervisor's: what lies there may be a pipe, a link or endless, and is read as that.
    """
    try:
        fd = os.open(directory / FAREWELL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return SILENT
    try:
        text = os.read(fd, MAX_WORDS) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        return Farewell.model_validate_json(text).why
    except (OSError, ValueError):
        return SILENT
    finally:
        os.close(fd)
