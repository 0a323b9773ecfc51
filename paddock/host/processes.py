"""Processes by what cannot be reused: a pid with its start time, watched and killed through a pidfd."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


def started(pid: int) -> int:
    """Start time of `pid` in clock ticks since boot; 0 when there is no such process or it is only a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: a pid that another process got later is not it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        return cls(pid, started(pid))

    def alive(self) -> bool:
        return self.pid > 0 and self.started > 0 and started(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd that becomes readable when the process ends; None when it has, or never was one."""
        if not self.alive():
            return None
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive():
            return fd
        os.close(fd)
        return None

    def kill(self) -> None:
        """SIGKILL, to this process only."""
        if (fd := self.open()) is not None:
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(fd)


def inside(directory: Path) -> list[Process]:
    """Processes that work in `directory` or below it, by the kernel's word: a sandbox's supervisor and its VMM."""
    found, root = [], f"{directory.resolve()}/"
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                where = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            except OSError:
                continue
            if f"{where}/".startswith(root) and (process := Process.of(int(entry))).alive():
                found.append(process)
    return found
