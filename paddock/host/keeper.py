"""The keeper: the one process of a host with privilege. Single-threaded, small, and never near a guest's bytes.

It forks supervisors, starts recorder, broker and host worker and starts them again when they die, hands out the
socketpairs that are a sandbox's identity towards recorder and broker, and proves sandboxes gone. It outlives its
worker; sandboxes outlive it: the next keeper finds them by run directory and pidfd.
"""

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.fleet import MAX_FOUND
from paddock.contracts.report import Receipt
from paddock.egress.tls.client import client_context
from paddock.host import inventory
from paddock.host.config import HostConfig, load
from paddock.host.fork import adopt_orphans
from paddock.host.loop import Loop
from paddock.host.messages import Held, KeeperAnswer, KeeperAsk, RunRecord
from paddock.host.paths import HostPaths, listen, peer_uid
from paddock.host.peer import Peer
from paddock.host.services import Services
from paddock.host.supervisors import Kept, Supervisors
from paddock.host.templates import Loaded, Templates
from paddock.host.users import Users
from paddock.host.wire import Splitter, words

log = logging.getLogger(__name__)
SOCKET = "keeper.sock"


class Door:
    """One connection of the host worker to the keeper."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.splitter = Splitter()
        self.subscribed = False

    def say(self, answer: KeeperAnswer) -> None:
        """Send, waiting a moment for a busy worker; one that does not read loses its door, never half an answer."""
        try:
            self.sock.settimeout(1.0)
            self.sock.sendall(words(answer))
            self.sock.setblocking(False)
        except OSError:
            self.subscribed = False
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # the loop sees its end and lets go of it


class Keeper:
    """All that a host's keeper does, driven by its loop."""

    def __init__(self, config: HostConfig, config_file: Path) -> None:
        self.config, self.loop = config, Loop()
        self.users = Users.here(config.uid_base)
        _prepare(config.paths, self.users)
        self.templates = Templates(config)
        self.supervisors = Supervisors(self.loop, config, self.users, self.templates.machine, self._on_lost)
        self.services = Services(self.loop, config, config_file, self.users, self._on_peer)
        self.doors: list[Door] = []
        self._unheard: dict[str, KeeperAnswer] = {}
        self._door = listen(config.paths.root / SOCKET, mode=0o660)
        self.users.own(config.paths.root / SOCKET, None, self.users.service_gid, 0o660)

    def run(self) -> None:
        adopt_orphans()
        self.loop.on_signal(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self._stop)
        self.loop.add(self._door.fileno(), self._on_door)
        for ca in {None, *(connection.ca for connection in self.config.connections)}:
            client_context(ca)
        gc.collect()
        gc.freeze()  # what is warm now stays shared with every child
        self.supervisors.adopt()
        for service in self.services.all:
            self.services.start(service)
        self.templates.get("base", self.config.default_shape, lambda *_: None)
        self.loop.run()

    def _stop(self) -> None:
        """End the services; sandboxes go on, for the next keeper to find."""
        self.services.stop()
        self._until_stopped(100)

    def _until_stopped(self, tries: int) -> None:
        self._reap()
        if tries and self.services.running():
            self.loop.later(0.05, lambda: self._until_stopped(tries - 1))
            return
        self.loop.stop()

    def _reap(self) -> None:
        while True:
            try:
                # Supervisors are reaped by their pidfd; here: services and template builders.
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if not self.services.died(pid):
                self.templates.died(pid)

    def _on_peer(self, name: str) -> None:
        """A service is new: every living sandbox gets a new end to it, and the broker hears who is left."""
        for kept in self.supervisors.kept.values():
            if kept.process.alive():
                recorder = self._introduce(self.services.recorder.peer, kept.record) if name == "recorder" else None
                broker = self._introduce(self.services.broker.peer, kept.record) if name == "broker" else None
                self.supervisors.replace(kept, recorder, broker)
        if name == "broker" and self.services.broker.peer:
            alive = [k.sandbox_id for k in self.supervisors.kept.values() if k.process.alive()]
            self.services.broker.peer.ask({"op": "sweep", "alive": alive}, lambda _: None)

    def _introduce(self, peer: Peer | None, record: RunRecord) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ref = record.ref
        who = {"sandbox": ref.sandbox_id, "project": ref.project, "owner": ref.owner, "run": ref.run_id}
        if peer:
            peer.tell({"op": "adopt", **who}, theirs.fileno())
        theirs.close()  # without a service the other end is closed, and the supervisor waits for the next one
        return ours

    def _on_lost(self, kept: Kept, why: str) -> None:
        news = KeeperAnswer(id=0, lost=kept.record.ref, why=why)
        self._unheard[kept.sandbox_id] = news
        if recorder := self.services.recorder.peer:
            event = {"kind": "sandbox.lost", "action_id": f"{kept.sandbox_id}/lost", "detail": {"why": why}}
            recorder.ask({"op": "record", "sandbox": kept.sandbox_id, "event": event}, lambda _: None)
        for door in self.doors:
            if door.subscribed:
                door.say(news)

    def _on_door(self) -> None:
        try:
            sock, _ = self._door.accept()
        except BlockingIOError:
            return
        if peer_uid(sock) not in self.users.may_ask:
            log.warning("uid %d may not ask the keeper", peer_uid(sock))
            sock.close()
            return
        sock.setblocking(False)
        door = Door(sock)
        self.doors.append(door)
        self.loop.add(sock.fileno(), lambda: self._on_words(door))

    def _on_words(self, door: Door) -> None:
        try:
            data = door.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            asks = [frame.open(KeeperAsk) for frame in door.splitter.feed(data)]
        except (PaddockError, ValueError):
            data = b""  # no worker of ours speaks so: whoever it is loses its door, and the keeper lives on
        if not data:
            self.loop.remove(door.sock.fileno())
            door.sock.close()
            self.doors.remove(door)
            return
        for ask in asks:
            try:
                self._answer(door, ask)
            except PaddockError as wrong:
                door.say(KeeperAnswer(id=ask.id, error=wrong.info))
            except OSError as wrong:
                door.say(KeeperAnswer(id=ask.id, error=_why(wrong)))
            except Exception as wrong:  # the keeper outlives whatever one request runs into
                log.exception("%s %s", ask.op, ask.sandbox_id)
                error = ErrorInfo(kind=ErrorKind.INTERNAL, message=f"{ask.op}: {wrong or type(wrong).__name__}")
                door.say(KeeperAnswer(id=ask.id, error=error))

    def _answer(self, door: Door, ask: KeeperAsk) -> None:
        match ask.op:
            case "boot":
                self._boot(door, ask)
            case "destroy":
                self.supervisors.destroy(_named(ask), lambda receipts: self._destroyed(door, ask, receipts))
            case "revoke":
                self._forward(self.services.broker.peer, door, ask, {"op": "revoke", "sandbox": _named(ask)})
            case "seal":
                self._forward(self.services.recorder.peer, door, ask, {"op": "seal", "sandbox": _named(ask)})
            case "extend":
                if ask.lease_end:
                    self.supervisors.extend(_named(ask), ask.lease_end)
                door.say(KeeperAnswer(id=ask.id))
            case "forget":
                self.supervisors.forget(_named(ask))
                door.say(KeeperAnswer(id=ask.id))
            case "inventory":
                pids = {service.name: service.pid for service in self.services.all}
                held = tuple(map(_held, self.supervisors.kept.values()))
                door.say(KeeperAnswer(id=ask.id, held=held, pids=pids))
            case "survey":
                door.say(self._survey(ask.id))
            case "leases":
                self._forward(self.services.broker.peer, door, ask, {"op": "leases"})
            case "subscribe":
                door.subscribed = True
                door.say(KeeperAnswer(id=ask.id))
                for news in self._unheard.values():
                    door.say(news)
            case "template":
                self.templates.get(
                    ask.image, ask.shape, lambda _, error: door.say(KeeperAnswer(id=ask.id, error=error))
                )

    def _survey(self, number: int) -> KeeperAnswer:
        config, kept = self.config, self.supervisors.kept
        loaded = self.templates.keys
        strays = inventory.strays(config.paths, f"{config.environment}-{config.host}-", kept)
        return KeeperAnswer(
            id=number,
            held=tuple(map(_held, kept.values())),
            strays=strays[:MAX_FOUND],
            more=len(strays[MAX_FOUND:]),
            templates=inventory.stale_templates(Path(config.cache) / "templates", loaded),
        )

    def _boot(self, door: Door, ask: KeeperAsk) -> None:
        boot = ask.boot
        if boot is None:
            raise PaddockError(ErrorKind.INTERNAL, "boot without a sandbox")

        def ready(loaded: Loaded | None, error: ErrorInfo | None) -> None:
            if loaded is None:
                door.say(KeeperAnswer(id=ask.id, error=error))
                return
            try:
                kept = self.supervisors.boot(boot, loaded, self._hand)
            except (PaddockError, OSError) as wrong:
                info = wrong.info if isinstance(wrong, PaddockError) else _why(wrong)
                door.say(KeeperAnswer(id=ask.id, error=info))
                return
            door.say(KeeperAnswer(id=ask.id, pid=kept.process.pid))

        self.templates.get(boot.image, boot.shape, ready)

    def _hand(self, record: RunRecord) -> tuple[socket.socket, socket.socket]:
        services = self.services
        return self._introduce(services.recorder.peer, record), self._introduce(services.broker.peer, record)

    def _destroyed(self, door: Door, ask: KeeperAsk, receipts: tuple[Receipt, ...]) -> None:
        self._unheard.pop(_named(ask), None)
        door.say(KeeperAnswer(id=ask.id, receipts=receipts))

    def _forward(self, peer: Peer | None, door: Door, ask: KeeperAsk, packet: dict[str, Any]) -> None:
        def reply(answer: dict[str, Any] | None) -> None:
            if answer is None or "error" in answer:
                message = str(answer.get("error")) if answer else f"the service for {ask.op!r} is starting again"
                door.say(KeeperAnswer(id=ask.id, error=ErrorInfo(kind=ErrorKind.INTERNAL, message=message)))
                return
            door.say(KeeperAnswer.model_validate({**answer, "id": ask.id}))

        if peer is None:
            reply(None)
        else:
            peer.ask(packet, reply)


def _why(wrong: OSError) -> ErrorInfo:
    if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
        return ErrorInfo(
            kind=ErrorKind.DISK_FULL, message="the host's disk is full", remedy="free space in its state directory"
        )
    return ErrorInfo(kind=ErrorKind.BOOT_FAILED, message=str(wrong))


def _named(ask: KeeperAsk) -> str:
    if ask.sandbox_id is None:
        raise PaddockError(ErrorKind.INTERNAL, f"{ask.op} names no sandbox")
    return ask.sandbox_id


def _held(kept: Kept) -> Held:
    return Held(
        ref=kept.record.ref,
        alive=kept.process.alive(),
        lease_end=kept.record.lease_end,
        caller_keys=kept.record.boot.caller_keys,
        created=kept.record.created,
        protected=kept.record.boot.protected,
    )


def _prepare(paths: HostPaths, users: Users) -> None:
    """Directories of a host, each with the least that its owner needs."""
    gid = users.service_gid
    for directory, uid, mode in (
        (paths.root, None, 0o755),
        (paths.held, None, 0o700),
        (paths.run, None, 0o755),
        (paths.output, None, 0o755),
        (paths.objects, users.worker, 0o700),
        (paths.worker, users.worker, 0o750),
        (paths.logs, None, 0o700),
        (paths.keys, None, 0o755),
        (paths.audit, users.recorder, 0o750),
        (paths.audit / "sealed", users.recorder, 0o2750),
        (paths.secrets, users.broker, 0o700),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        users.own(directory, uid, gid if mode != 0o700 else None, mode)


def main(argv: list[str]) -> int:
    """Entry of `paddock worker host`: the configuration's path is the one argument."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: paddock worker host CONFIG  (the file that `paddock up` writes as host.json)", file=sys.stderr)  # noqa: T201
        return 2
    try:
        [file] = argv
        Keeper(load(Path(file)), Path(file)).run()
    except PaddockError as wrong:
        print(f"paddock: {wrong}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
