"""The recorder: the one process of a host that orders, stores and signs audit events; one thread, a group at a time."""

import fcntl
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from paddock.audit.checkpoint import key_name
from paddock.audit.event import AuditUnavailable, Owner, Said, SandboxName
from paddock.audit.gaps import MOST
from paddock.audit.ledger import Ledger, Refused
from paddock.audit.recovery import DamagedSpool, recover
from paddock.audit.spool import Limits
from paddock.contracts.base import Strict, Wire
from paddock.packets.port import Closed, Port

log = logging.getLogger(__name__)
PACKETS_A_TURN = 64
TAKE_OVER_S = 4.0
SHARES = 16
"""One sandbox may use a sixteenth of the spool, so that it takes many greedy ones to be in the way of another."""


class RecorderConfig(Strict):
    """Where a host's recorder keeps its files, who it is, and its bounds in bytes and seconds."""

    directory: Path
    host: str
    environment: str
    max_bytes: int = Field(1 << 30, ge=1 << 16)
    segment_bytes: int = Field(16 << 20, ge=1 << 12)
    sandbox_bytes: int = Field(0, ge=0, description="one sandbox's share of max_bytes; 0: a sixteenth of it")
    checkpoint_s: float = Field(5.0, gt=0)

    def limits(self) -> Limits:
        return Limits(self.max_bytes, self.segment_bytes, self.sandbox_bytes or self.max_bytes // SHARES)


class _Order(Wire):
    """A packet of the keeper."""

    op: Literal["adopt", "seal", "stats", "record"]
    id: int = 0
    sandbox: SandboxName | None = None
    project: str = "default"
    owner: str = ""
    run: str = ""
    event: Said | None = None


class _Record(Strict):
    """A packet of a supervisor: one event, or the count of those it had to drop."""

    id: Annotated[int, Field(ge=0)]
    mode: Literal["strict", "buffer", "gap"]
    event: Said | None = None
    dropped: Annotated[int, Field(ge=1, le=MOST)] | None = None
    action_id: str = Field("", max_length=128)


Answer = Callable[[dict[str, object]], None]


class Recorder:
    """Serves the keeper's socket and one socket a supervisor until told to stop."""

    def __init__(self, control: socket.socket, config: RecorderConfig, ledger: Ledger) -> None:
        self._selector = selectors.DefaultSelector()
        self._control: Port | None = Port(control, self._selector)
        self._ledger = ledger
        self._ports: dict[str, set[Port]] = {}
        self._answers: list[tuple[Answer, dict[str, object]]] = []
        self._claim = _Claim(config.directory)
        self.stopping = False

    def serve(self) -> None:
        """Loop: read what is there, write and sync it as one group, answer."""
        while not self.stopping:
            ready = self._selector.select(timeout=self._ledger.until_due())
            for key, events in ready:
                port: Port = key.data
                if events & selectors.EVENT_WRITE:
                    port.flush()
                if events & selectors.EVENT_READ and port.open:
                    self._read(port)
            self._commit()
            self._ledger.heartbeat()
            if self._control is None and (self._claim.taken() or not self._served()):
                self.stopping = True
        self._ledger.sign_all()
        self._selector.close()

    def _served(self) -> bool:
        return any(port.open for ports in self._ports.values() for port in ports)

    def _read(self, port: Port) -> None:
        try:
            if port is self._control:
                while (came := port.receive_with_descriptor()) is not None:
                    self._order(port, *came)
                return
            for _ in range(PACKETS_A_TURN):
                packet = port.receive()
                if packet is None:
                    return
                self._record(port, packet)
        except Closed as closed:
            self._drop(port, str(closed))

    def _drop(self, port: Port, why: str) -> None:
        port.close()
        if port is self._control:
            # Sandboxes outlive their keeper; its successor starts another recorder, which claims the directory.
            self._control = None
            return
        self._ports.get(port.sandbox, set()).discard(port)
        if why:
            log.warning("cut off the supervisor of %s: %s", port.sandbox, why)
            self._ledger.violation(port.sandbox, why)

    def _record(self, port: Port, packet: bytes) -> None:
        try:
            record = _Record.model_validate_json(packet)
        except ValidationError as error:
            if not _is_refusable(packet, port, error):
                raise Closed("a packet that is no record") from error
            return
        try:
            if record.event is not None:
                seq = self._ledger.append(port.sandbox, record.event)
            elif record.dropped is not None:
                seq, durable = self._ledger.gap(port.sandbox, record.dropped, record.action_id)
                if durable:
                    port.send({"id": record.id, "seq": seq})
                    return
            else:
                raise Closed("a record of nothing")
        except Refused as refused:
            port.send({"id": record.id, "error": str(refused), "full": refused.full})
            return
        self._answers.append((port.send, {"id": record.id, "seq": seq}))

    def _order(self, port: Port, packet: bytes, came: socket.socket | None) -> None:
        try:
            order = _Order.model_validate_json(packet)
        except ValidationError as error:
            log.error("a packet of the keeper that is none: %s", error)
            if came is not None:
                came.close()
            return
        try:
            answer = self._obey(order, came)
        except (Refused, AuditUnavailable, OSError) as error:
            log.warning("%s of %s refused: %s", order.op, order.sandbox, error)
            answer = {"error": str(error)}
            if came is not None:
                came.close()
        if answer is not None:
            self._answers.append((port.send, {"id": order.id, **answer}))

    def _obey(self, order: _Order, came: socket.socket | None) -> dict[str, object] | None:
        if order.op == "stats":
            return self._ledger.stats()
        if order.sandbox is None:
            raise Refused("which sandbox?")
        if order.op == "adopt":
            if came is None:
                raise Refused("adopt comes with a socket")
            self._ledger.adopt(order.sandbox, Owner(project=order.project, owner=order.owner, run=order.run))
            self._ports.setdefault(order.sandbox, set()).add(Port(came, self._selector, order.sandbox))
            return None
        if order.op == "record":
            if order.event is None:
                raise Refused("record comes with an event")
            return {"seq": self._ledger.append(order.sandbox, order.event)}
        self._commit()
        summary = self._ledger.seal(order.sandbox)
        for port in self._ports.pop(order.sandbox, set()):
            port.close()
        return {"events": summary.events, "head": summary.head, "path": str(summary.path or "")}

    def _commit(self) -> None:
        error = ""
        try:
            self._ledger.commit()
        except AuditUnavailable as unavailable:
            log.error("%s", unavailable.info.message)
            error = unavailable.info.message
        answers, self._answers = self._answers, []
        for send, message in answers:
            send({"id": message["id"], "error": error, "full": True} if error and "seq" in message else message)


def _is_refusable(packet: bytes, port: Port, error: ValidationError) -> bool:
    """A record whose event alone is wrong is answered in words; anything else is no honest supervisor."""
    if any(problem["loc"][:1] != ("event",) for problem in error.errors(include_input=False)):
        return False
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    port.send({"id": _Numbered.model_validate_json(packet).id, "error": f"{where}: {first['msg']}", "full": False})
    return True


class _Numbered(Wire):
    id: int


class _Claim:
    """A file that a new recorder touches, so that one whose keeper is gone lets go of the directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "claim"
        self._mine = self._stamp()

    def _stamp(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def taken(self) -> bool:
        return self._stamp() != self._mine


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory; the recorder of a keeper that died is asked to go and waited for. Raises TimeoutError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        (directory / "claim").touch()
        deadline = time.monotonic() + TAKE_OVER_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another recorder holds {directory} and does not let go") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def main(control: socket.socket, config: RecorderConfig, key: Ed25519PrivateKey) -> int:
    """Run the recorder of a host in this process until SIGTERM, or until its keeper and all supervisors are gone.

    `control` is a SOCK_SEQPACKET end to the keeper. Answers an exit code: 1 when the directory is taken or damaged.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _alone(config.directory):
            recovered = recover(config.directory, config.limits())
            signer = key_name(config.environment, config.host)
            ledger = Ledger(config.directory, signer, config.checkpoint_s, key, recovered, time.time)
            recorder = Recorder(control, config, ledger)
            signal.signal(signal.SIGTERM, lambda *_: setattr(recorder, "stopping", True))
            recorder.serve()
    except (TimeoutError, DamagedSpool, OSError) as error:
        log.critical("the recorder cannot run: %s", error)
        return 1
    return 0
