"""What there is on the machine at one moment: everything that a sandbox could leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.observer.processes import Process, descriptors, processes

LISTENING, ACCEPTS = "0A", 0x10000


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that exists; `id` tells it from a later one of the same name, `owners` are pids known to hold it."""

    kind: str
    id: str
    what: str
    owners: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Traces by kind and id; the paths of files apart, for they are many; processes; and who holds what open."""

    traces: dict[tuple[str, str], Trace] = field(repr=False)
    files: frozenset[str] = field(repr=False)
    processes: dict[int, Process] = field(repr=False)
    held: dict[str, list[int]] = field(repr=False)

    def of(self, kind: str) -> list[Trace]:
        return [trace for trace in self.traces.values() if trace.kind == kind]


def likely_places(repository: Path) -> tuple[Path, ...]:
    """Where programs leave files."""
    fixed = (Path("/tmp"), Path("/var/tmp"), Path("/run"), Path("/dev/shm"))
    return tuple(dict.fromkeys(path.resolve() for path in (*fixed, Path.home(), repository)))


def snapshot(places: tuple[Path, ...], skip: tuple[Path, ...] = ()) -> Snapshot:
    """Look at everything now; `places` are walked for files, without what lies at or below `skip`."""
    known = processes()
    held: dict[str, list[int]] = {}
    for pid in known:
        for target in set(descriptors(pid)):
            held.setdefault(target, []).append(pid)
    traces: list[Trace] = []
    for process in known.values():
        if process.state not in "ZX":
            traces.append(Trace("process", process.key, str(process), (process.pid,)))
    traces += _namespaces(known, held)
    traces += _mounts(known)
    traces += _sockets(known, held)
    traces += _cgroups()
    traces += _devices()
    files = frozenset(_files(places, skip))
    return Snapshot({(trace.kind, trace.id): trace for trace in traces}, files, known, held)


def _in_namespaces(known: dict[int, Process], kind: str) -> dict[str, tuple[int, ...]]:
    """Pids by namespace."""
    found: dict[str, list[int]] = {}
    for process in known.values():
        if name := process.namespace(kind):
            found.setdefault(name, []).append(process.pid)
    return {name: tuple(members) for name, members in found.items()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:  # the process, and with it this view, went away
        return []


def _namespaces(known: dict[int, Process], held: dict[str, list[int]]) -> Iterator[Trace]:
    """Network namespaces by members, by open descriptors, and by mounts that pin them."""
    for name, members in _in_namespaces(known, "net").items():
        yield Trace("netns", name, f"{name} of {len(members)} processes", members)
    for target, owners in held.items():
        if target.startswith("net:["):
            yield Trace("netns-descriptor", f"{target}", f"{target} kept open", tuple(owners))
    for line in _lines(Path("/proc/self/mountinfo")):
        words = line.split()
        if words[3].startswith("net:["):
            yield Trace("netns-mount", words[3], f"{words[3]} pinned at {words[4]}")


def _mounts(known: dict[int, Process]) -> Iterator[Trace]:
    mine = os.readlink("/proc/self/ns/mnt")
    for name, members in _in_namespaces(known, "mnt").items():
        for line in _lines(Path(f"/proc/{members[0]}/mountinfo")):
            words = line.split()
            after = words[words.index("-") + 1 :]
            where = "" if name == mine else f" in {name}"
            # another's private view belongs to its members; a mount that everybody sees belongs to nobody
            yield Trace(
                "mount",
                f"{name} {words[0]} {words[4]}",
                f"{after[0]} of {after[1]} at {words[4]}{where}",
                () if name == mine else members,
            )


def _sockets(known: dict[int, Process], held: dict[str, list[int]]) -> Iterator[Trace]:
    """Listening TCP, bound UDP, and Unix sockets that listen or have a name, in every network namespace."""
    for name, members in _in_namespaces(known, "net").items():
        view = Path(f"/proc/{members[0]}/net")
        for protocol in ("tcp", "tcp6", "udp", "udp6"):
            for line in _lines(view / protocol)[1:]:
                words = line.split()
                if protocol.startswith("udp") or words[3] == LISTENING:
                    port = int(words[1].rpartition(":")[2], 16)
                    owners = tuple(held.get(f"socket:[{words[9]}]", ()))
                    yield Trace("socket", f"{name} {protocol} {words[9]}", f"{protocol} port {port}", owners)
        for line in _lines(view / "unix")[1:]:
            words = line.split(None, 7)
            path = words[7] if len(words) > 7 else ""
            if int(words[3], 16) & ACCEPTS or (path and words[4] == "0002"):
                owners = tuple(held.get(f"socket:[{words[6]}]", ()))
                yield Trace("socket", f"{name} unix {words[6]}", f"unix {path or '(no name)'}", owners)


def _cgroups() -> Iterator[Trace]:
    """Every group of every hierarchy: version 1, version 2, or both side by side."""
    for line in _lines(Path("/proc/self/mountinfo")):
        words = line.split()
        if words[words.index("-") + 1] in ("cgroup", "cgroup2"):
            for directory, _, _ in os.walk(words[4]):
                owners = tuple(int(pid) for pid in _lines(Path(directory) / "cgroup.procs") if pid.isdecimal())
                inode = _inode(directory)
                yield Trace("cgroup", f"{directory} {inode}", f"{directory} ({len(owners)} processes)", owners)


def _devices() -> Iterator[Trace]:
    """Network interfaces of this namespace, and loop devices in use."""
    for name in sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else ():
        index = "".join(_lines(Path("/sys/class/net") / name / "ifindex"))
        yield Trace("interface", f"{name} {index}", name)
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield Trace("loop device", str(path), f"{path.parts[3]} on {''.join(_lines(path))}")


def _files(places: tuple[Path, ...], skip: tuple[Path, ...]) -> Iterator[str]:
    """Files and folders of the places, each on its own file system; a new mount on top is a trace of its own."""
    skipped = {str(path) for path in skip}
    for place in places:
        try:
            device = os.stat(place).st_dev
        except OSError:
            continue
        left = [str(place)]
        while left:
            try:
                entries = list(os.scandir(left.pop()))
            except OSError:
                continue
            for entry in entries:
                if entry.path in skipped:
                    continue
                yield entry.path
                try:
                    if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                        left.append(entry.path)
                except OSError:
                    continue


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
