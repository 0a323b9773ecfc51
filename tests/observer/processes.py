"""Processes as /proc shows them, and whose children they are."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
MONITORS = ("qemu-system", "firecracker", "cloud-hypervis")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `start` is its start time in clock ticks, so that (pid, start) never repeats."""

    pid: int
    start: int
    parent: int
    session: int
    state: str
    name: str
    exe: str
    command: str
    namespaces: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        return f"{self.pid}@{self.start}"

    def namespace(self, kind: str) -> str:
        """Such as `net:[4026531840]`; empty where it can't be read."""
        return dict(self.namespaces).get(kind, "")

    def __str__(self) -> str:
        return f"{self.command[:160] or self.name} (pid {self.pid}, parent {self.parent}, session {self.session})"


def pids() -> Iterator[int]:
    for name in os.listdir(PROC):
        if name.isdecimal():
            yield int(name)


def read_process(pid: int) -> Process | None:
    """The process, or None when it is gone meanwhile."""
    directory = PROC / str(pid)
    try:
        name, _, rest = (directory / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
        command = (directory / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    stat = rest.split()
    spaces = tuple((kind, _link(directory / "ns" / kind)) for kind in ("net", "mnt"))
    return Process(
        pid=pid,
        start=int(stat[19]),
        parent=int(stat[1]),
        session=int(stat[3]),
        state=stat[0],
        name=name,
        exe=_link(directory / "exe"),
        command=command,
        namespaces=spaces,
    )


def processes() -> dict[int, Process]:
    """Every process there is."""
    return {process.pid: process for pid in pids() if (process := read_process(pid))}


def family(root: int, known: dict[int, Process]) -> set[int]:
    """Pids of `root` and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for process in known.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, left = set[int](), [root]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children.get(pid, ())
    return found


def guests(among: Iterable[int] | None = None) -> tuple[int, ...]:
    """Pids of virtual machine monitors, by the program that they run."""
    known = processes()
    wanted = set(known) if among is None else set(among)
    return tuple(p.pid for p in known.values() if p.pid in wanted and Path(p.exe).name.startswith(MONITORS))


def adopt_orphans() -> None:
    """Orphans of this process's descendants become its children, so that none leaves the family by a double fork."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process can't adopt orphans")


def reap_orphans() -> int:
    """Reap dead children of this process; only for when it waits for no child elsewhere. How many they were."""
    count = 0
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            count += 1
    except ChildProcessError:
        pass
    return count


def descriptors(pid: int) -> Iterator[str]:
    """What the open descriptors of a process point to: paths, `socket:[1]`, `net:[2]`, …"""
    directory = PROC / str(pid) / "fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if target := _link(directory / name):
            yield target


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
