"""What a host really holds, by looking: the keeper's half by the kernel's word, and the worker's, which joins all."""

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from paddock.contracts.fleet import MAX_FOUND, Found, Hold, HostInventory, Left, StaleTemplate
from paddock.host.config import HostConfig
from paddock.host.messages import KeeperAnswer, Stray
from paddock.host.objects import ObjectStore
from paddock.host.paths import HostPaths
from paddock.host.processes import started
from paddock.host.slots import RESERVED_S, Slots
from paddock.microvm.cgroup import Hierarchy, detect

GROUP: Final = "paddock"
STALE_TEMPLATE_S: Final = 7 * 86400.0
_HZ: Final = os.sysconf("SC_CLK_TCK")


class _Seen:
    """The parts of one stray, with the youngest of their ages."""

    def __init__(self) -> None:
        self.ages: list[float] = []
        self.holds: set[Hold] = set()
        self.pids: set[int] = set()
        self.grouped: set[int] = set()

    @property
    def elsewhere(self) -> bool:
        return bool(self.grouped - self.pids)

    def add(self, hold: Hold, age_s: float | None) -> None:
        self.holds.add(hold)
        if age_s is not None:
            self.ages.append(age_s)


def strays(
    paths: HostPaths, prefix: str, known: Collection[str], hierarchy: Hierarchy | None = None
) -> tuple[Stray, ...]:
    """Run directories, processes in them, sockets, records and cgroups that belong to no sandbox in `known`.

    Needs the keeper's privilege. Cgroups are named `prefix` and the sandbox: another host of this machine may bear the
    same name, so one whose processes work elsewhere is not ours, or called foreign when more speaks for us.
    """
    now = time.time()
    seen: dict[str, _Seen] = {}

    def part(name: str) -> _Seen:
        return seen.setdefault(name, _Seen())

    for name, pids in _working(paths.run).items():
        if name not in known:
            part(name).pids |= pids
            part(name).add(Hold.PROCESSES, min(map(_age_of_process, pids)))
    for entry in _entries(paths.run):
        if entry.name not in known:
            part(entry.name).add(Hold.RUNDIR, _age(entry, now))
    for entry in _entries(paths.held):
        name, _, kind = entry.name.partition(".")
        if name not in known:
            part(name).add(Hold.SOCKET if kind == "sock" else Hold.RECORD, _age(entry, now))
    for entry in _cgroups(hierarchy or detect()):
        name = entry.name.removeprefix(prefix)
        if entry.name.startswith(prefix) and name not in known:
            part(name).grouped |= _members(entry)
            part(name).add(Hold.CGROUP, _age(entry, now))
    strangers = {name for name, one in seen.items() if one.elsewhere and one.holds == {Hold.CGROUP}}
    return tuple(_stray(name, seen[name]) for name in sorted({*seen} - strangers))


def _stray(name: str, seen: _Seen) -> Stray:
    return Stray(
        name=name,
        age_s=min(seen.ages, default=None),
        holds=tuple(sorted(seen.holds)),
        foreign="processes in its cgroup do not work in this host's directories" if seen.elsewhere else "",
    )


def stale_templates(directory: Path, loaded: Collection[str]) -> tuple[StaleTemplate, ...]:
    """Saved templates that this keeper has not loaded, and half-written ones, that nobody wrote to for a week."""
    now = time.time()
    found = []
    for entry in _entries(directory):
        age = _age(entry, now)
        if age is not None and age > STALE_TEMPLATE_S and entry.name not in loaded and not entry.name.endswith(".lock"):
            size = sum(os.stat(part).st_blocks * 512 for part in _entries(entry) if part.is_file())
            found.append(StaleTemplate(name=entry.name, age_s=age, bytes=size))
    return tuple(found[:MAX_FOUND])


def join(
    config: HostConfig, survey: KeeperAnswer, leases: KeeperAnswer | None, slots: Slots, objects: ObjectStore
) -> HostInventory:
    """All that the host holds, by sandbox; `leases` None: the broker did not answer, and the list says so."""
    now, paths = time.time(), config.paths
    found = {
        held.ref.sandbox_id: Found(
            sandbox_id=held.ref.sandbox_id,
            workflow_id=held.ref.workflow_id,
            run_id=held.ref.run_id,
            age_s=max(0.0, now - held.created.timestamp()) if held.created else None,
            protected=held.protected,
            holds=(Hold.RECORD, Hold.PROCESSES) if held.alive else (Hold.RECORD,),
        )
        for held in survey.held
    }
    for stray in survey.strays:
        found[stray.name] = Found(sandbox_id=stray.name, age_s=stray.age_s, holds=stray.holds, foreign=stray.foreign)
    for slot in slots.held():
        if slot.confirmed:  # a reservation lapses by itself
            age = max(0.0, now - (slot.expires_at - RESERVED_S))
            _also(found, slot.sandbox_id, Hold.SLOT, age, slot.workflow_id)
    for sandbox_id, since in (leases.leases if leases else {}).items():
        _also(found, sandbox_id, Hold.CREDENTIAL, max(0.0, now - since))
    left = tuple(_left(paths, slots, objects, found, now))
    missing = [] if leases else ["the broker did not say what credentials are out"]
    if survey.more or (leases and leases.more) or max(len(found), len(left)) > MAX_FOUND:
        missing.append(f"more than {MAX_FOUND} things: the rest was not looked at")
    return HostInventory(
        environment=config.environment,
        host=config.host,
        found=tuple(found[name] for name in sorted(found))[:MAX_FOUND],
        left=left[:MAX_FOUND],
        templates=survey.templates,
        missing=tuple(missing),
    )


def _also(found: dict[str, Found], sandbox_id: str, hold: Hold, age_s: float, workflow_id: str = "") -> None:
    """One more thing of a sandbox; without a record of its own it is as old as its youngest part."""
    known = found.get(sandbox_id)
    if known is None:
        found[sandbox_id] = Found(sandbox_id=sandbox_id, workflow_id=workflow_id, age_s=age_s, holds=(hold,))
        return
    change: dict[str, object] = {"holds": (*known.holds, hold), "workflow_id": known.workflow_id or workflow_id}
    if not known.run_id and known.age_s is not None:
        change["age_s"] = min(known.age_s, age_s)
    found[sandbox_id] = known.model_copy(update=change)


def _left(paths: HostPaths, slots: Slots, objects: ObjectStore, found: Collection[str], now: float) -> Iterator[Left]:
    wanted = slots.remembered() | {*found}
    outputs = {entry.name: entry for entry in _entries(paths.output) if entry.name not in wanted}
    kept = {name: objects.folder(name) for name in objects.sandboxes() if name not in wanted}
    for name in sorted({*outputs, *kept}):
        ages = [_age(where[name], now) for where in (outputs, kept) if name in where]
        known = [age for age in ages if age is not None]
        youngest = min(known) if len(known) == len(ages) else None
        yield Left(sandbox_id=name, age_s=youngest, output=name in outputs, objects=name in kept)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age(path: Path, now: float) -> float | None:
    """Seconds since anything last changed at `path` itself; None when it went away meanwhile."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return max(0.0, now - max(found.st_mtime, found.st_ctime))


def _age_of_process(pid: int) -> float:
    """Seconds since the process started; 0 when it is gone."""
    ticks = started(pid)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _HZ if ticks else 0.0


def _working(run: Path) -> dict[str, set[int]]:
    """Processes by the sandbox in whose run directory they work: one look over all of /proc."""
    found: dict[str, set[int]] = {}
    root = f"{run.resolve()}/"
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                where = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
            except OSError:
                continue
            if where.startswith(root):
                found.setdefault(where[len(root) :].partition("/")[0], set()).add(int(pid))
    return found


def _cgroups(hierarchy: Hierarchy) -> Iterator[Path]:
    for base in (hierarchy.unified, *(path for _, path in hierarchy.controllers)):
        if base is not None:
            yield from (entry for entry in _entries(base / GROUP) if entry.is_dir())


def _members(cgroup: Path) -> set[int]:
    try:
        return {int(word) for word in (cgroup / "cgroup.procs").read_text().split()}
    except OSError:
        return set()
