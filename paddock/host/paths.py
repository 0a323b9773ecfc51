"""Where a host keeps what; unix sockets are reached by directory descriptor, so that no path is ever too long."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostPaths:
    """Directories and files below `<state>/host`."""

    root: Path

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def secrets(self) -> Path:
        return self.root / "broker"

    @property
    def held(self) -> Path:
        """Records of the sandboxes that this host holds: the keeper writes them, and nobody else can."""
        return self.root / "held"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def slots(self) -> Path:
        return self.worker / "slots.json"

    @property
    def worker(self) -> Path:
        return self.root / "worker"

    @property
    def worker_ready(self) -> Path:
        return self.worker / "ready"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def sandbox(self, sandbox_id: str) -> Path:
        return self.run / sandbox_id

    def record(self, sandbox_id: str) -> Path:
        return self.held / f"{sandbox_id}.json"

    def ends(self, sandbox_id: str) -> Path:
        """Where a supervisor listens for new ends to a restarted recorder or broker; only the keeper can reach it."""
        return self.held / f"{sandbox_id}.sock"

    def task_output(self, sandbox_id: str, task: int) -> Path:
        return self.output / sandbox_id / f"{task}.out"

    def task_done(self, sandbox_id: str, task: int) -> Path:
        return self.output / sandbox_id / f"{task}.done"


@contextmanager
def _by_descriptor(directory: Path, name: str) -> Iterator[str]:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def listen(path: Path, kind: int = socket.SOCK_STREAM, mode: int = 0o600) -> socket.socket:
    """A listening unix socket at `path`, replacing a dead one of the same name."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o777 & ~mode)
    try:
        with _by_descriptor(path.parent, path.name) as short:
            sock.bind(short)
    finally:
        os.umask(before)
    sock.listen(64)
    sock.setblocking(False)
    return sock


def dial(path: Path, kind: int = socket.SOCK_STREAM, *, wait: bool = True) -> socket.socket:
    """A socket connected to the unix socket at `path`; raises OSError when nobody listens or, not `wait`, at once."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(wait)
        with _by_descriptor(path.parent, path.name) as short:
            sock.connect(short)
    except OSError:
        sock.close()
        raise
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user of the process at the other end of a connected unix socket, by the kernel's word."""
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
