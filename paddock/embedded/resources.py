"""Where the parts that are not Python lie: in a clone, or beside the `worker` package of the second wheel."""

import importlib.util
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError

GUEST: Final = "guest"
TEMPORAL: Final = "infra/temporal"
_INSTALLED: Final = "_parts"


def resource(name: str) -> Path:
    """The folder of one part (`guest`, `infra/temporal`); raises PaddockError SET_UP where it is not installed."""
    for root in _roots():
        if (root / name).is_dir():
            return root / name
    raise PaddockError(
        ErrorKind.SET_UP,
        f"the folder {name} of Paddock is not on this machine",
        remedy="install the wheel paddock-worker beside paddock, or run from a clone of the repository",
    )


def _roots() -> list[Path]:
    # find_spec of a top-level name looks for it without running it: this room never imports `worker`.
    roots = [Path(__file__).resolve().parents[2]]
    spec = importlib.util.find_spec("worker")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        roots.append(Path(place) / _INSTALLED)
    return roots
