"""Recorder, broker and host worker: started, watched and started again by the keeper."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paddock.audit.checkpoint import load_or_make_key
from paddock.audit.recorder import RecorderConfig
from paddock.audit.recorder import main as recorder_main
from paddock.host.config import HostConfig
from paddock.host.fork import die_with_parent, drop_privileges, fork
from paddock.host.loop import Loop
from paddock.host.peer import Peer
from paddock.host.users import Users
from paddock.secrets.broker import main as broker_main
from paddock.secrets.config import BrokerConfig, StoreCredentials

RESTART_S = 0.05
TOO_OFTEN_S = 2.0


@dataclass
class Service:
    """One service: how to start it, its pid now, and its control socket when it has one."""

    name: str
    start: Callable[["Service"], int]
    pid: int = 0
    peer: Peer | None = None
    began: float = 0.0


class Services:
    """The keeper's three services. `on_peer(name)` is called whenever a service with a control socket is new."""

    def __init__(self, loop: Loop, config: HostConfig, config_file: Path, users: Users, on_peer: Callable[[str], None]):
        self._loop, self._config, self._config_file, self._users = loop, config, config_file, users
        self._on_peer = on_peer
        self._stopping = False
        self.recorder = Service("recorder", self._start_recorder)
        self.broker = Service("broker", self._start_broker)
        self.worker = Service("worker", self._start_worker)
        self.all = (self.recorder, self.broker, self.worker)

    def start(self, service: Service) -> None:
        service.began = time.monotonic()
        service.pid = service.start(service)
        if service.peer:
            self._on_peer(service.name)

    def died(self, pid: int) -> bool:
        """Whether `pid` was a service; it is started again, slower when it dies at once."""
        for service in self.all:
            if service.pid == pid:
                self._drop_peer(service)
                service.pid = 0
                if not self._stopping:
                    soon = time.monotonic() - service.began < TOO_OFTEN_S
                    self._loop.later(1.0 if soon else RESTART_S, lambda service=service: self._again(service))  # type: ignore[misc]
                return True
        return False

    def stop(self) -> None:
        """Ask every service to end: the worker first, while the others can still answer it."""
        self._stopping = True
        for service in reversed(self.all):
            if service.pid:
                os.kill(service.pid, signal.SIGTERM)

    def running(self) -> bool:
        return any(service.pid for service in self.all)

    def _again(self, service: Service) -> None:
        if not self._stopping and not service.pid:
            self.start(service)

    def _connect(self, service: Service) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        service.peer = Peer(ours)
        self._loop.add(
            ours.fileno(), lambda: None if service.peer and service.peer.read() else self._drop_peer(service)
        )
        return theirs

    def _drop_peer(self, service: Service) -> None:
        if peer := service.peer:
            service.peer = None
            self._loop.remove(peer.sock.fileno())
            peer.close()

    def _start_recorder(self, service: Service) -> int:
        config, users, paths, parent = self._config, self._users, self._config.paths, os.getpid()
        control = self._connect(service)

        def body() -> None:
            # The key is read here, after the fork: neither the keeper nor a supervisor ever holds it.
            key = load_or_make_key(paths.keys, config.environment, config.host)
            drop_privileges(users.recorder, users.recorder)
            die_with_parent(parent)
            recorder_main(
                control,
                RecorderConfig(
                    directory=Path(),
                    host=config.host,
                    environment=config.environment,
                    max_bytes=config.audit_max_bytes,
                    segment_bytes=config.audit_segment_bytes,
                    checkpoint_s=30.0,
                ),
                key,
            )

        pid = fork("paddock-record", body, [control.fileno()], paths.logs / "recorder.log", paths.audit)
        control.close()
        return pid

    def _start_broker(self, service: Service) -> int:
        config, users, paths, parent = self._config, self._users, self._config.paths, os.getpid()
        control = self._connect(service)

        def body() -> None:
            # Store credentials are read here, after the fork: neither the keeper nor a supervisor ever holds them.
            store = config.secrets
            credentials = StoreCredentials(_read(store.key_file), _read(store.jwt_key_file))
            file = _reachable(store.file) if store.file else None
            drop_privileges(users.broker, users.broker)
            die_with_parent(parent)
            settings = BrokerConfig(
                state_dir=Path(),
                host=config.host,
                store=store.kind,
                file=file,
                openbao=store.openbao,
            )
            broker_main(control, settings, credentials, config.policy_key)

        pid = fork("paddock-broker", body, [control.fileno()], paths.logs / "broker.log", paths.secrets)
        control.close()
        return pid

    def _start_worker(self, service: Service) -> int:
        parent, paths = os.getpid(), self._config.paths
        config_file = str(self._config_file)

        def body() -> None:
            # It reads its token and its libraries first and gives up its privilege then, by itself.
            os.execv(sys.executable, [sys.executable, "-m", "worker.host", config_file, str(parent)])  # noqa: S606

        return fork("paddock-worker", body, [], paths.logs / "worker.log")


def _read(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None


def _reachable(file: Path) -> Path:
    """The same file by a descriptor of its directory: its absolute path may lead through what only root may search."""
    return Path(f"/proc/self/fd/{os.open(file.parent, os.O_PATH | os.O_DIRECTORY)}") / file.name
