"""The VMM's process: forked by us, confined, watched by pidfd, reaped by us; nobody else waits for it."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.driver import Ended, Usage
from paddock.microvm.jail import Jail, enter, own_pids

FIRST_FD: Final = 3
"""Descriptors handed to the VMM are numbered from here, in the order given."""

_KILL_WAIT_S: Final = 5.0
_WORDS_BYTES: Final = 2000
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def _child(argv: list[str], fds: Sequence[int], log: int, jail: Jail, report: int) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        sources = (null, log, log, *fds, report)
        # First out of the way, then into place: a source may have a number that is a target.
        above = max(*sources, FIRST_FD + len(sources)) + 1
        spare = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in sources]
        for target, fd in enumerate(spare):
            os.dup2(fd, target, inheritable=fd != spare[-1])
        report = len(spare) - 1
        os.closerange(report + 1, 65536)
        enter(jail, report)
        os.execve(argv[0], argv, {})  # noqa: S606
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, str(error).encode()[:1000])
    os._exit(127)


def spawn(argv: list[str], fds: Sequence[int], log: Path, jail: Jail) -> int:
    """Fork and exec `argv` (absolute path, empty environment), output to `log`; the pid, or PaddockError BOOT_FAILED.

    Must be called in the main thread: the kernel sends PDEATHSIG when the forking *thread* ends.
    """
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        with own_pids():
            pid = os.fork()
            if pid == 0:
                _child(argv, fds, log_fd, jail, write)
    finally:
        os.close(log_fd)
        os.close(write)
    with open(read, "rb") as pipe:
        words = pipe.read()
    if words:
        os.waitpid(pid, 0)
        why = words.decode(errors="replace")
        raise PaddockError(ErrorKind.BOOT_FAILED, f"{argv[0]} could not be started: {why}")
    return pid


class Process:
    """One spawned child, watched in the running loop."""

    def __init__(self, argv: list[str], fds: Sequence[int], log: Path, jail: Jail) -> None:
        """`spawn`, and watch what was spawned."""
        self._loop = asyncio.get_running_loop()
        self._log = log
        self.pid = spawn(argv, fds, log, jail)
        self._pidfd = os.pidfd_open(self.pid)
        self.exited: asyncio.Future[Ended] = self._loop.create_future()
        self._smaps: int | None = None
        self._kill_group: int | None = None
        self._last = Usage(0.0, 0, 0)
        self._loop.add_reader(self._pidfd, self._reap)
        self._open_for_later(jail)

    def _open_for_later(self, jail: Jail) -> None:
        # A supervisor gives up root after this: what is open stays usable, by its right at the time of opening.
        with contextlib.suppress(OSError):
            self._smaps = os.open(f"/proc/{self.pid}/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)
        for procs in jail.cgroup_procs:
            with contextlib.suppress(OSError):
                self._kill_group = os.open(procs.with_name("cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if not pid:
            return
        self._loop.remove_reader(self._pidfd)
        for fd in (self._pidfd, self._smaps, self._kill_group):
            if fd is not None:
                os.close(fd)
        self._smaps = self._kill_group = None
        killed = os.WIFSIGNALED(status)
        ended = Ended(
            pid=self.pid,
            code=None if killed else os.waitstatus_to_exitcode(status),
            signal=os.WTERMSIG(status) if killed else None,
            words=self._words(),
        )
        if not self.exited.done():
            self.exited.set_result(ended)

    def _words(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _WORDS_BYTES))
                return file.read(_WORDS_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""

    def kill(self) -> bool:
        """Send SIGKILL, through the cgroup where our uid may not; False when nothing of that is allowed."""
        if self.exited.done():
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            return True
        if self._kill_group is not None:
            with contextlib.suppress(OSError):
                os.write(self._kill_group, b"1")
                return True
        return False

    async def wait(self, timeout_s: float = _KILL_WAIT_S) -> Ended:
        """The process's end, reaped; PaddockError INTERNAL when it is still there after `timeout_s`."""
        try:
            return await asyncio.wait_for(asyncio.shield(self.exited), timeout_s)
        except TimeoutError:
            raise PaddockError(ErrorKind.INTERNAL, f"the VMM (pid {self.pid}) did not end in {timeout_s:g} s") from None

    def usage(self) -> Usage:
        """What the process took; after its end, what was seen last."""
        if self.exited.done():
            return self._last
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{self.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
            rss = pss = 0
            if self._smaps is not None:
                for line in os.pread(self._smaps, 4096, 0).splitlines():
                    name, _, rest = line.partition(b":")
                    if name == b"Rss":
                        rss = int(rest.split()[0]) * 1024
                    elif name == b"Pss":
                        pss = int(rest.split()[0]) * 1024
            self._last = Usage(cpu_s, rss, pss)
        return self._last
