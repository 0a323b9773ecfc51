"""The processes of one `paddock up` by what they are: by their parent, their name and their command."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tests.observer.processes import PROC, Process, descriptors, processes

PARTS = {
    "temporal": "server start-dev",
    "keeper": "-m paddock.host",
    "control": "-m worker.control",
    "environment": "-m worker.environment",
    "relay": "-m paddock.relay",
}
KEPT = {"paddock-record": "recorder", "paddock-broker": "broker"}
WORKER = "-m worker.host"
GROWTH = 8
STARTED_S = 10.0


def services(up: int, known: dict[int, Process] | None = None) -> dict[str, list[Process]]:
    """Every living process by its part; two of one part are both there, so that the second one is seen."""
    known = processes() if known is None else known
    living = [process for process in known.values() if process.state not in "ZX"]
    found: dict[str, list[Process]] = {}
    for process in living:
        if process.pid == up:
            found.setdefault("up", []).append(process)
        elif process.parent == up:
            for part, words in PARTS.items():
                if words in process.command:
                    found.setdefault(part, []).append(process)
    keepers = {process.pid for process in found.get("keeper", ())}
    for process in living:
        if process.parent in keepers:
            if process.name in KEPT:
                found.setdefault(KEPT[process.name], []).append(process)
            elif WORKER in process.command:
                found.setdefault("worker", []).append(process)
    return found


def working_in(directory: Path, known: dict[int, Process] | None = None) -> list[Process]:
    """Living processes whose working directory is, or was, this one or one below it."""
    root, found = f"{directory}/", list[Process]()
    for process in (processes() if known is None else known).values():
        try:
            where = os.readlink(PROC / str(process.pid) / "cwd").removesuffix(" (deleted)")
        except OSError:
            continue
        if process.state not in "ZX" and f"{where}/".startswith(root):
            found.append(process)
    return found


class Descriptors:
    """Open descriptors of long-lived processes: what a process keeps of each sandbox that is gone adds up."""

    def __init__(self, started_s: float = STARTED_S) -> None:
        self._started_s = started_s
        self._least: dict[str, int] = {}

    def grown(self, watched: Iterable[Process]) -> list[str]:
        """Processes that hold many more now than the least they ever held at rest; one that starts has no rest yet."""
        found = []
        for process in watched:
            if _age_s(process) < self._started_s:
                continue
            count = sum(1 for _ in descriptors(process.pid))
            least = self._least[process.key] = min(count, self._least.get(process.key, count))
            if count > least + GROWTH:
                found.append(f"{process.name}: {count} open descriptors, {least} before")
        return found


def _age_s(process: Process) -> float:
    uptime_s = float((PROC / "uptime").read_text().split()[0])
    return uptime_s - process.start / os.sysconf("SC_CLK_TCK")
