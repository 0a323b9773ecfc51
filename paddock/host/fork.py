"""Forking from the keeper's warm state: what a child keeps, whose uid it takes, and that it dies with its parent."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies: a VMM without its supervisor is reaped here."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int, how: int = signal.SIGKILL) -> None:
    """Arm PDEATHSIG; set after any change of uid, which clears it. Exits at once when the parent died meanwhile."""
    _libc.prctl(PR_SET_PDEATHSIG, how, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def drop_privileges(uid: int | None, gid: int | None) -> None:
    """Become `uid` and `gid` for good, without supplementary groups; nothing to do when rootless (None)."""
    if gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _close_all_but(keep: set[int]) -> None:
    lowest = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def fork(name: str, body: Callable[[], None], keep: Iterable[int], log: Path, home: Path | None = None) -> int:
    """Run `body` in a child that holds only `keep` and its log as descriptors; answers its pid.

    The child leaves the keeper's signals and session, writes what it prints to `log`, and exits 0 when `body` returns,
    1 with a traceback in `log` when it raises. `home` becomes its working directory: after it gave up its uid it may
    not be able to reach its own files by their absolute paths, so it uses paths relative to there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _close_all_but(set(keep))
        if home:
            os.chdir(home)
        _libc.prctl(15, name.encode()[:15], 0, 0, 0)  # PR_SET_NAME: what ps and the observer show
        body()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
