"""Finding the `paddock up` of this machine: its state directory holds one small file while it runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from paddock.contracts.base import Wire

UP_FILE: Final = "up.json"


class Up(Wire):
    """A running `paddock up`: Temporal's address, the UI's, the relay's, its process and its state directory."""

    temporal: str
    ui: str = ""
    relay: str = ""
    pid: int = Field(ge=1)
    state: str = ""


def state_dir(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """`given`, else $PADDOCK_STATE, else `paddock` in the user's state directory (XDG)."""
    if given is not None:
        return given
    if chosen := environ.get("PADDOCK_STATE"):
        return Path(chosen)
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "paddock"


def running(given: Path | None = None) -> Up | None:
    """What runs on this state directory, or None: no file, an unreadable one, or one whose process is gone."""
    try:
        up = Up.model_validate_json((state_dir(given) / UP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return up if _alive(up.pid) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's process, alive
    except (OSError, OverflowError):
        return False
    return True
