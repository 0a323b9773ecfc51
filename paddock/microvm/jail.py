"""What a VMM's process does to itself between fork and exec, so that it starts with nothing it does not need."""

import contextlib
import ctypes
import os
import resource
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_CAP_SYS_ADMIN: Final = 21
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_THP_DISABLE: Final = 41

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]


@dataclass(frozen=True, slots=True)
class Jail:
    """What the child becomes. `uid` and `gid` None: it stays who it is (rootless mode)."""

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


def may_unshare() -> bool:
    """Whether this process may make namespaces: root does, but not in every container."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


@contextlib.contextmanager
def own_pids() -> Iterator[None]:
    """A child forked inside is the first process of a new pid namespace: it can name, and signal, nobody else."""
    if not may_unshare():
        yield
        return
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWPID), "unshare")
        try:
            yield
        finally:
            _check(_libc.setns(ours, _CLONE_NEWPID), "setns")
    finally:
        os.close(ours)


def enter(jail: Jail, parent_pipe: int) -> None:
    """Confine the calling, single-threaded, just forked process; OSError when any step fails: then it must not exec.

    `parent_pipe` is the write end of a pipe whose only read end the parent holds. The order matters: cgroups and
    namespaces need root, PDEATHSIG is cleared by setresuid, and a parent that died before PDEATHSIG was set is seen
    only by looking (not by getppid: in a new pid namespace the parent has no number).
    """
    os.setsid()
    for procs in jail.cgroup_procs:
        with open(procs, "w") as file:
            file.write("0")
    os.umask(0o077)
    os.chdir(jail.directory)
    if may_unshare():
        # An empty network namespace: a VMM that a guest took over finds no interface, no abstract socket.
        _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC), "unshare")
    _limit(jail)
    if jail.uid is not None and jail.gid is not None:
        os.setgroups([])
        os.setresgid(jail.gid, jail.gid, jail.gid)
        os.setresuid(jail.uid, jail.uid, jail.uid)
    # QEMU asks for huge pages for its translated code; an idle clone uses a few pages of each, and pays for all.
    _check(_libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0), "thp_disable")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    watch = select.poll()
    watch.register(parent_pipe, 0)
    if watch.poll(0):
        raise OSError("the parent died")
    # Python ignores SIGPIPE and may have blocked signals; exec would hand both on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def give_up_root(uid: int, gid: int, vmm_uid: int) -> None:
    """Make the calling supervisor `uid`, for ever, and leave it the one right it needs: to end a VMM of `vmm_uid`.

    The kernel checks PDEATHSIG like any signal of the dying parent, so a parent of quite another user does not take
    its VMM along. Sharing the *real* uid allows signals, and nothing else: files go by the effective uid, ptrace by all
    three. The way back is closed to the VMM by its pid namespace, in which the supervisor has no number.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(vmm_uid, uid, uid)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _limit(jail: Jail) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the guest's memory
    resource.setrlimit(resource.RLIMIT_NOFILE, (jail.open_files, jail.open_files))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    if jail.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (jail.file_bytes, jail.file_bytes))
