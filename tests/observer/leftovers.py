"""What is there after a run that was not there before it."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.observer.processes import family
from tests.observer.snapshot import Snapshot, Trace

IGNORE = "PADDOCK_OBSERVER_IGNORE"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may remain: files at or below `roots`, those that match a glob, and the work of others in `shared` places.

    In a shared place, what appears inside of a folder that was there before belongs to that folder's maker; whatever is
    new at its top counts. Without `shared`, and in every other place, all that is new counts.
    """

    roots: tuple[Path, ...] = ()
    globs: tuple[str, ...] = ()
    shared: tuple[Path, ...] = ()

    @classmethod
    def usual(cls, repository: Path) -> Allowed:
        """The cache, `.venv` and `build/`; and the globs in PADDOCK_OBSERVER_IGNORE, with colons between."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "paddock"
        roots = (cache, repository / ".venv", repository / "build")
        globs = tuple(glob for glob in os.environ.get(IGNORE, "").split(":") if glob)
        return cls(roots, globs, (Path("/tmp"), Path("/var/tmp")))

    def __contains__(self, path: str) -> bool:
        """True for what may remain wherever it came from; a folder that became allowed is not asked about."""
        if any(path.startswith(f"{place}/") and "/" in path[len(f"{place}/") :] for place in self.shared):
            return True
        if any(path == str(root) or path.startswith(f"{root}/") for root in self.roots):
            return True
        return any(fnmatch.fnmatchcase(path, glob) for glob in self.globs)


def leftovers(before: Snapshot, after: Snapshot, allowed: Allowed, *, root: int | None = None) -> list[Trace]:
    """Every trace of `after` that is neither in `before` nor allowed; a new folder stands for all that is in it.

    With `root` (a process that adopts orphans, see `adopt_orphans`), what belongs only to processes outside its family
    is somebody else's and left out. What has no known owner always counts.
    """
    ours = None if root is None else family(root, after.processes)
    fresh = [trace for key, trace in sorted(after.traces.items()) if key not in before.traces]
    new = after.files - before.files
    for path in sorted(new):
        if path not in allowed and os.path.dirname(path) not in new:
            fresh.append(Trace("file", path, path, tuple(after.held.get(path, ()))))
    return [trace for trace in fresh if ours is None or not trace.owners or ours & set(trace.owners)]


def settle(
    before: Snapshot, look: Callable[[], Snapshot], allowed: Allowed, *, root: int | None = None, within_s: float = 5.0
) -> list[Trace]:
    """The leftovers that are still there after `within_s`, asked until there are none: a kernel frees some late."""
    deadline = time.monotonic() + within_s
    while True:
        found = leftovers(before, look(), allowed, root=root)
        if not found or time.monotonic() >= deadline:
            return found
