"""Pidfds whose process is gone: at rest nobody needs one, and one that is kept of each sandbox adds up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.observer.processes import PROC, Process

GONE = "-1"


def dead_handles(watched: Iterable[Process]) -> list[str]:
    """Processes that hold handles of the dead, in words; what may not be looked into has none."""
    found = []
    for process in watched:
        if count := sum(_of_the_dead(file) for file in _descriptors(process.pid)):
            found.append(f"{process.name}: {count} pidfds of processes that are gone")
    return found


def _descriptors(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "fdinfo").iterdir())
    except OSError:
        return []


def _of_the_dead(file: Path) -> bool:
    try:
        fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    except OSError:  # closed meanwhile
        return False
    return fields.get("Pid", "").strip() == GONE
