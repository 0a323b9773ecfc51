"""A VM's cgroup on any machine: unified (v2), v1 controllers beside a bare v2 tree, or none at all (rootless)."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CPU_PERIOD_US: Final = 100_000
_GROUP: Final = "paddock"
_KEEPER: Final = "paddock-keeper"
_CONTROLLERS: Final = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Limits:
    """What everything in one cgroup may take together; None: no limit. `cpus` counts processors, also in parts."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where this process may make cgroups: one v2 directory at most, and one directory for each v1 controller."""

    unified: Path | None
    controllers: tuple[tuple[str, Path], ...]
    own: Path | None = None
    """Our own cgroup in the v2 tree when its controllers are used: it must hold no process then."""


def detect(mounts: str | None = None, membership: str | None = None) -> Hierarchy:
    """The hierarchy below our own cgroups, from the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    unified: Path | None = None
    v1: dict[str, Path] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, point = fields[3], Path(fields[4])
        if kind[0] == "cgroup2" and unified is None:
            unified = _below(point, root, own.get("", "/"))
        elif kind[0] == "cgroup":
            for name in set(kind[2].split(",")) & set(_CONTROLLERS):
                v1.setdefault(name, _below(point, root, own.get(name, "/")))
    if unified is not None and not v1:
        return Hierarchy(_usable(unified), (), own=unified)
    usable = tuple((name, path) for name, path in sorted(v1.items()) if _usable(path))
    return Hierarchy(unified and _usable(unified), usable)


def _below(point: Path, root: str, own: str) -> Path:
    """Where cgroup `own` is, in a mount at `point` that shows the tree from `root` on."""
    inside = os.path.relpath(own, root) if own.startswith(root) else "."
    return point / inside


def _usable(path: Path) -> Path | None:
    return path if os.access(path, os.W_OK | os.X_OK) else None


def prepare(hierarchy: Hierarchy) -> None:
    """In a v2 tree, hand its controllers down; our own processes move to a leaf, as an inner node must hold none.

    Call once, early; does nothing elsewhere. OSError when the tree was not delegated to us.
    """
    own = hierarchy.own
    if own is None or hierarchy.unified is None:
        return
    try:
        _hand_down(own)
    except OSError:
        leaf = own / _KEEPER
        leaf.mkdir(exist_ok=True)
        for pid in (own / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        _hand_down(own)


def _hand_down(node: Path) -> None:
    wanted = set(_CONTROLLERS) & set((node / "cgroup.controllers").read_text().split())
    if wanted:
        (node / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))


def _make(path: Path, *, hand_down: bool) -> None:
    # Someone who removes the last neighbour may remove the parent between our two steps.
    for attempt in range(5):
        try:
            path.parent.mkdir(exist_ok=True)
            if hand_down and (path.parent / "cgroup.controllers").exists():
                _hand_down(path.parent)
            path.mkdir(exist_ok=True)
            return
        except FileNotFoundError:
            if attempt == 4:
                raise


class Cgroup:
    """The cgroup `name`, in every hierarchy that there is. Without any, everything is empty and nothing fails."""

    def __init__(self, name: str, unified: Path | None, controllers: tuple[tuple[str, Path], ...]) -> None:
        self.name = name
        self._unified = unified
        self._controllers = controllers

    @classmethod
    def at(cls, name: str, hierarchy: Hierarchy | None = None) -> "Cgroup":
        """The cgroup `name`, whether or not it exists: creating it first is not needed to kill and to remove it."""
        if not name or "/" in name or name.startswith("."):
            raise ValueError("a cgroup's name is one path component")
        found = hierarchy or detect()
        unified = found.unified / _GROUP / name if found.unified else None
        return cls(name, unified, tuple((kind, path / _GROUP / name) for kind, path in found.controllers))

    @classmethod
    def create(cls, name: str, limits: Limits, hierarchy: Hierarchy | None = None) -> "Cgroup":
        """Make the cgroup, or find it, and set its limits; OSError when a limit that was asked for cannot be set."""
        group = cls.at(name, hierarchy)
        for path in group._paths():
            _make(path, hand_down=path == group._unified and not group._controllers)
        for path, value in group._settings(limits):
            path.write_text(value)
        return group

    @property
    def limited(self) -> bool:
        """Whether limits hold here at all."""
        return bool(self._controllers) or (self._unified is not None and (self._unified / "memory.max").exists())

    def procs_files(self) -> tuple[Path, ...]:
        """Files to write a process id into, to join."""
        return tuple(path / "cgroup.procs" for path in self._paths())

    def pids(self) -> set[int]:
        """Processes in it now."""
        found: set[int] = set()
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError):
                found |= {int(word) for word in (path / "cgroup.procs").read_text().split()}
        return found

    def kill(self) -> None:
        """Kill everything in it: at once where the kernel can (v2), else round by round while none can be added."""
        with contextlib.suppress(FileNotFoundError):
            if self._unified is not None and (self._unified / "cgroup.kill").exists():
                (self._unified / "cgroup.kill").write_text("1")
        for kind, path in self._controllers:
            if kind == "pids":
                with contextlib.suppress(FileNotFoundError):
                    (path / "pids.max").write_text("0")
        for _ in range(100):
            pids = self.pids() - {0}
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def empty(self) -> bool:
        """Whether no process is in it; also true when it does not exist."""
        return not self.pids()

    def exists(self) -> bool:
        """Whether any directory of it is left."""
        return any(path.exists() for path in self._paths())

    def remove(self) -> None:
        """Remove it, and an empty parent; OSError (busy) while a process is in it. One that is gone already is fine."""
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def _paths(self) -> Iterator[Path]:
        if self._unified is not None:
            yield self._unified
        for _, path in self._controllers:
            yield path

    def _settings(self, limits: Limits) -> Iterator[tuple[Path, str]]:
        quota = None if limits.cpus is None else max(1000, round(limits.cpus * _CPU_PERIOD_US))
        for kind, path in self._controllers:
            if kind == "memory" and limits.memory_bytes is not None:
                yield path / "memory.limit_in_bytes", str(limits.memory_bytes)
            elif kind == "pids" and limits.pids is not None:
                yield path / "pids.max", str(limits.pids)
            elif kind == "cpu" and quota is not None:
                yield path / "cpu.cfs_quota_us", str(quota)
        if self._unified is not None and not self._controllers:
            if limits.memory_bytes is not None:
                yield self._unified / "memory.max", str(limits.memory_bytes)
            if limits.pids is not None:
                yield self._unified / "pids.max", str(limits.pids)
            if quota is not None:
                yield self._unified / "cpu.max", f"{quota} {_CPU_PERIOD_US}"
