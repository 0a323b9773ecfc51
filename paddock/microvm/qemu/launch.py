"""Starting QEMU: its process, its control socket and its channel, none of which has a name in the file system."""

import socket
from collections.abc import Sequence
from pathlib import Path

from paddock.microvm.jail import Jail
from paddock.microvm.qemu.process import Process
from paddock.microvm.qemu.qmp import Qmp


def launch(words: list[str], fds: Sequence[int], log: Path, jail: Jail) -> tuple[Process, Qmp, socket.socket]:
    """Start QEMU with control socket and channel before `fds`; both are pairs without a name in the file system."""
    ours_qmp, its_qmp = socket.socketpair()
    ours, its = socket.socketpair()
    try:
        process = Process(words, (its_qmp.fileno(), its.fileno(), *fds), log, jail)
    except BaseException:
        ours_qmp.close()
        ours.close()
        raise
    finally:
        its_qmp.close()
        its.close()
    return process, Qmp(ours_qmp), ours
