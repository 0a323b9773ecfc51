"""Names in a sandbox's run directory, and what the supervisor writes there: sizes and ids, nothing secret."""

import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel

META: Final = "meta.json"
VM: Final = "vm.json"
CONTROL: Final = "control.sock"
KEEPER: Final = "keeper.sock"
LOG: Final = "supervisor.log"
VMM: Final = "vm"


def write(file: Path, model: BaseModel) -> None:
    """Write `model` as JSON in one step: a reader sees the old text or the new one."""
    new = file.with_suffix(".new")
    new.write_text(model.model_dump_json())
    os.replace(new, file)


class VmRecord(BaseModel):
    """The VMM's pid and its start time: together they name one process for good."""

    pid: int
    started: int


class Farewell(BaseModel):
    """Why a supervisor ended by itself."""

    why: str


FAREWELL: Final = "farewell.json"


def why(directory: Path) -> str:
    """Why the supervisor of this run directory is gone, by its own last word or else in general terms."""
    try:
        return Farewell.model_validate_json((directory / FAREWELL).read_bytes()).why
    except (OSError, ValueError):
        return "the supervisor died without a word"
