"""The broker: holds the host's access to the secret store and gives supervisors what their signed policies bind."""

import base64
import contextlib
import logging
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, StringConstraints, ValidationError

from paddock.contracts.base import Strict, Wire
from paddock.contracts.errors import PaddockError
from paddock.packets.port import Closed, Port
from paddock.policy.decide import Question
from paddock.secrets.access import Access
from paddock.secrets.accessors import Accessors
from paddock.secrets.config import BrokerConfig, StoreCredentials, make_store
from paddock.secrets.store import Ended, Secret, SecretUnavailable, Store

__all__ = ["Broker", "BrokerConfig", "StoreCredentials", "main"]

log = logging.getLogger(__name__)
THREADS = 8
MAX_QUEUED = 64
MAX_LEASES = 2500  # what one packet holds
MAX_POLICY_BYTES = 8 << 20
PACKETS_A_TURN = 32
SandboxName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Text = Annotated[str, StringConstraints(max_length=8192)]


class _Order(Wire):
    """A packet of the keeper."""

    op: Literal["adopt", "revoke", "sweep", "leases"]
    id: int = 0
    sandbox: SandboxName | None = None
    alive: tuple[str, ...] = ()


class _Open(Strict):
    """A piece of a signed policy; the last one has `more` false."""

    id: int
    op: Literal["open"]
    policy: str
    part: int = Field(ge=0)
    more: bool = False


class _Fetch(Strict):
    """One use of one secret."""

    id: int
    op: Literal["fetch"]
    ref: Annotated[str, StringConstraints(max_length=128)]
    rule: Annotated[str, StringConstraints(max_length=256)]
    host: Annotated[str, StringConstraints(max_length=253)]
    port: int
    method: Annotated[str, StringConstraints(max_length=32)]
    path: Text


class _Asked(Strict):
    ask: Annotated[_Open | _Fetch, Field(discriminator="op")]


@dataclass(slots=True)
class _Box:
    """A sandbox's access, its sockets, and the blocking work that waits its turn: one job at a time."""

    access: Access
    since: float
    ports: set[Port] = field(default_factory=set)
    jobs: deque[Callable[[], Callable[[], None]]] = field(default_factory=deque)
    busy: bool = False
    renewing: bool = False
    policy: list[str] = field(default_factory=list)


class Broker:
    """Serves the keeper's socket and one socket a supervisor; the store is asked on a few threads."""

    def __init__(
        self,
        control: socket.socket,
        store: Store,
        accessors: Accessors,
        policy_key: Ed25519PublicKey,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._control: Port | None = Port(control, self._selector)
        self._store = store
        self._accessors = accessors
        self._policy_key = policy_key
        self._clock = clock
        self._began = clock()
        self._boxes: dict[str, _Box] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._done: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self.stopping = False

    def serve(self) -> None:
        """Loop until told to stop, or until the keeper and all supervisors are gone; then the tokens held here end."""
        while not self.stopping:
            for key, events in self._selector.select(timeout=0.5):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                    continue
                port: Port = key.data
                if events & selectors.EVENT_WRITE:
                    port.flush()
                if events & selectors.EVENT_READ and port.open:
                    self._read(port)
            while self._done:
                self._done.popleft()()
            self._renew()
            if self._control is None and not any(port.open for box in self._boxes.values() for port in box.ports):
                # Another keeper's broker has opened tokens of its own by now, or the sandboxes are gone.
                for box in self._boxes.values():
                    box.access.end()
                self.stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)

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
                self._asked(port, packet)
        except Closed as closed:
            port.close()
            if port is self._control:
                self._control = None
                return
            box = self._boxes.get(port.sandbox)
            if box is not None:
                box.ports.discard(port)
            if str(closed):
                log.warning("cut off the supervisor of %s: %s", port.sandbox, closed)

    def _asked(self, port: Port, packet: bytes) -> None:
        try:
            ask = _Asked.model_validate_json(b'{"ask":' + packet + b"}").ask
        except ValidationError:
            raise Closed("a packet that asks nothing") from None
        box = self._boxes[port.sandbox]
        try:
            if isinstance(ask, _Open):
                self._open(box, port, ask)
            else:
                self._fetch(box, port, ask)
        except PaddockError as error:
            port.send({"id": ask.id, "error": error.info.message})

    def _open(self, box: _Box, port: Port, ask: _Open) -> None:
        if ask.part == 0:
            box.policy = []
        if ask.part != len(box.policy):
            # The pieces before it went to a broker that died; the client begins again.
            port.send({"id": ask.id, "error": "a piece of a policy without those before it", "again": True})
            return
        if sum(map(len, box.policy)) + len(ask.policy) > MAX_POLICY_BYTES:
            raise Closed("a policy that is too large")
        box.policy.append(ask.policy)
        if ask.more:
            port.send({"id": ask.id, "ok": True})
            return
        signed, box.policy = "".join(box.policy), []
        box.access.attach(signed, self._policy_key)
        if not box.access.wants_session:
            port.send({"id": ask.id, "ok": True})
            return
        self._submit(box, partial(_opened, box), port, ask.id)

    def _fetch(self, box: _Box, port: Port, ask: _Fetch) -> None:
        box.access.check(ask.ref, ask.rule, Question(ask.host, ask.port, "http", ask.method, ask.path))
        held = box.access.cached(ask.ref)
        if held is not None:
            port.send({"id": ask.id, **_given(held)})
            return
        if len(box.jobs) >= MAX_QUEUED:
            raise SecretUnavailable(f"{MAX_QUEUED} requests of this sandbox already wait for the secret store")
        self._submit(box, lambda: _given(box.access.read(ask.ref)), port, ask.id)

    def _submit(self, box: _Box, work: Callable[[], dict[str, object]], port: Port, number: int) -> None:
        def job() -> Callable[[], None]:
            try:
                answer = work()
            except PaddockError as error:
                answer = {"error": error.info.message}
            return lambda: port.send({"id": number, **answer})

        box.jobs.append(job)
        self._turn(box)

    def _turn(self, box: _Box) -> None:
        """Start the sandbox's next job unless one runs."""
        if box.busy or not box.jobs:
            return
        box.busy = True
        job = box.jobs.popleft()

        def run() -> None:
            finish: Callable[[], None] = lambda: None  # noqa: E731
            try:
                finish = job()
            except Exception as error:  # the edge of a thread: the supervisor's request times out, others go on
                log.error("asking the secret store failed: %s", type(error).__name__)
            self._done.append(lambda: self._finished(box, finish))
            with contextlib.suppress(BlockingIOError):
                self._wake.send(b"\0")

        self._pool.submit(run)

    def _finished(self, box: _Box, finish: Callable[[], None]) -> None:
        box.busy = False
        finish()
        self._turn(box)

    def _renew(self) -> None:
        now = self._clock()
        for box in self._boxes.values():
            due = box.access.renew_at()
            if due is not None and due <= now and not box.renewing:
                box.renewing = True
                box.jobs.append(partial(_renewed, box))
                self._turn(box)

    def _order(self, port: Port, packet: bytes, came: socket.socket | None) -> None:
        try:
            order = _Order.model_validate_json(packet)
        except ValidationError as error:
            log.error("a packet of the keeper that is none: %s", error)
            if came is not None:
                came.close()
            return
        if order.op == "sweep":
            self._sweep(port, order)
        elif order.op == "leases":
            port.send({"id": order.id, **self._leases()})
        elif order.sandbox is None:
            port.send({"id": order.id, "error": "which sandbox?"})
        elif order.op == "revoke":
            number = order.id
            self._revoke(order.sandbox, lambda ended: port.send({"id": number, **_gone(ended)}))
        elif came is not None:
            box = self._box(order.sandbox)
            box.ports.add(Port(came, self._selector, order.sandbox))

    def _box(self, sandbox: str) -> _Box:
        box = self._boxes.get(sandbox)
        if box is None:
            access = Access(sandbox, self._store, self._accessors, self._clock)
            box = self._boxes[sandbox] = _Box(access, self._clock())
        return box

    def _revoke(self, sandbox: str, answer: Callable[[Ended], None]) -> None:
        box = self._box(sandbox)
        box.access.close()

        def job() -> Callable[[], None]:
            ended = box.access.end()
            return lambda: self._revoked(sandbox, box, ended, answer)

        box.jobs.append(job)
        self._turn(box)

    def _revoked(self, sandbox: str, box: _Box, ended: Ended, answer: Callable[[Ended], None]) -> None:
        if ended.proved and self._boxes.get(sandbox) is box:
            for port in box.ports:
                port.close()
            del self._boxes[sandbox]
        answer(ended)

    def _leases(self) -> dict[str, object]:
        """Since when each sandbox has access here, seconds since 1970; an earlier broker's tokens since our start."""
        out = dict.fromkeys(sorted(self._accessors.sandboxes()), self._began)
        out |= {sandbox: box.since for sandbox, box in self._boxes.items()}
        return {"leases": dict(list(out.items())[:MAX_LEASES]), "more": max(0, len(out) - MAX_LEASES)}

    def _sweep(self, port: Port, order: _Order) -> None:
        """Revoke whatever belongs to no living sandbox; answers once all of it was tried."""
        alive = set(order.alive)
        gone = sorted((self._accessors.sandboxes() | set(self._boxes)) - alive)
        answers: dict[str, object] = {}
        if not gone:
            port.send({"id": order.id, "revoked": answers})

        def answered(sandbox: str, ended: Ended) -> None:
            answers[sandbox] = _gone(ended)
            if len(answers) == len(gone):
                port.send({"id": order.id, "revoked": answers})

        for sandbox in gone:
            self._revoke(sandbox, partial(answered, sandbox))


def _opened(box: _Box) -> dict[str, object]:
    box.access.open()
    return {"ok": True}


def _renewed(box: _Box) -> Callable[[], None]:
    try:
        box.access.renew()
    except SecretUnavailable as error:
        log.warning("the store token of %s was not renewed: %s", box.access.sandbox, error.info.message)

    def finish() -> None:
        box.renewing = False

    return finish


def _given(secret: Secret) -> dict[str, object]:
    return {"value": base64.b64encode(secret.value).decode(), "expires_at": secret.expires_at}


def _gone(ended: Ended) -> dict[str, object]:
    return {"gone": "proved" if ended.proved else "unproved", "checked_by": ended.checked_by}


def main(
    control: socket.socket, config: BrokerConfig, credentials: StoreCredentials, policy_key: Ed25519PublicKey
) -> int:
    """Run the broker of a host in this process until SIGTERM, or until its keeper and all supervisors are gone.

    `control` is a SOCK_SEQPACKET end to the keeper. Answers an exit code: 1 when the store can't be set up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        broker = Broker(control, make_store(config, credentials), Accessors(config.state_dir), policy_key)
    except (PaddockError, OSError) as error:
        log.critical("the broker cannot run: %s", error)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: setattr(broker, "stopping", True))
    broker.serve()
    return 0
