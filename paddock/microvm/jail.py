"""What a VMM's process does to itself between fork and exec, so that it starts with nothing it does not need."""

import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.unshare.argtypes = [ctypes.c_int]


@dataclass(frozen=True, slots=True)
class Jail:
    """What the child becomes. `uid` and `gid` None: it stays who it is (rootless mode)."""

    parent: int
    directory: Path
    uid: int | None = None
    gid: int | None = None
    cgroup_procs: tuple[Path, ...] = ()
    file_bytes: int | None = None
    open_files: int = 128


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def enter(jail: Jail) -> None:
    """Confine the calling, single-threaded, just forked process; OSError when any step fails: then it must not exec.

    The order matters: cgroups and namespaces need root, PDEATHSIG is cleared by setresuid, and a parent that died
    before PDEATHSIG was set is seen only by looking.
    """
    os.setsid()
    for procs in jail.cgroup_procs:
        with open(procs, "w") as file:
            file.write("0")
    os.umask(0o077)
    os.chdir(jail.directory)
    if os.geteuid() == 0:
        # An empty network namespace: a VMM that a guest took over finds no interface, no abstract socket.
        _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC), "unshare")
    _limit(jail)
    if jail.uid is not None and jail.gid is not None:
        os.setgroups([])
        os.setresgid(jail.gid, jail.gid, jail.gid)
        os.setresuid(jail.uid, jail.uid, jail.uid)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != jail.parent:
        raise OSError("the parent died")
    # Python ignores SIGPIPE and may have blocked signals; exec would hand both on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _limit(jail: Jail) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the guest's memory
    resource.setrlimit(resource.RLIMIT_NOFILE, (jail.open_files, jail.open_files))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    if jail.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (jail.file_bytes, jail.file_bytes))
