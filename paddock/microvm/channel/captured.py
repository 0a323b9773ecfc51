"""What programs in the guest ask of the world: captured connections and DNS queries, given to whoever decides."""

import asyncio
import ipaddress
import logging
from typing import Protocol

from paddock.microvm.channel.frames import MAX_PAYLOAD, Violation
from paddock.microvm.channel.messages import Connect, Dns, Event, ExitStatus
from paddock.microvm.channel.stream import Sink, Stream
from paddock.microvm.channel.transport import GuestTransport

_log = logging.getLogger(__name__)


class GuestHandler(Protocol):
    """Who decides on what comes out of the guest."""

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        """A captured connection; `transport.accept()` or `.refuse()` is owed, now or later."""

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        """Answer a DNS query with a whole message, or None to fail it."""

    def event(self, kind: int, payload: bytes) -> None:
        """The guest's word about itself, never a fact."""


class Captured:
    """Everything of one session that the guest began; `close` ends what still waits for an answer."""

    def __init__(self, handler: GuestHandler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._answering: set[asyncio.Task[None]] = set()

    def connection(self, stream: Stream, connect: Connect) -> Sink:
        """A captured connection, as the transport that the handler got; Violation when its target is no address."""
        try:
            address = str(ipaddress.ip_address(connect.address))
        except ValueError:
            raise Violation("a connection to something that is not an address") from None
        transport = GuestTransport(stream, self._loop, address, connect.port)
        self._handler.connect(transport, address, connect.port)
        return transport

    def query(self, stream: Stream, query: Dns) -> Sink:
        """A captured DNS query; its stream carries the handler's answer, or is reset without one."""
        task = self._loop.create_task(self._answer(stream, query))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return _Query(task)

    def event(self, event: Event) -> None:
        """The guest's word about itself."""
        self._handler.event(event.kind, event.payload)

    def close(self) -> None:
        """The session is over: no answer is needed any more."""
        for task in self._answering:
            task.cancel()

    async def _answer(self, stream: Stream, query: Dns) -> None:
        answer: bytes | None = None
        try:
            answer = await self._handler.dns(query.message, query.tcp)
        except Exception:
            _log.exception("a DNS query could not be answered")
        if answer is None or len(answer) > MAX_PAYLOAD:
            stream.reset("no answer")
        else:
            stream.accept(answer)
            stream.close()


class _Query:
    """Sink of a DNS query: the guest can only give up on it."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def accepted(self, payload: bytes) -> None:
        """Never called: the guest opened this stream."""

    def data(self, chan: int, payload: memoryview) -> None:
        """Never called: the stream has no channel."""

    def ended(self, chan: int) -> None:
        """Never called: the stream has no channel."""

    def exited(self, status: ExitStatus) -> None:
        """Never called: not a program."""

    def gone(self, reason: str, violation: bool) -> None:
        """Nobody waits for the answer any more."""
        self._task.cancel()

    def drained(self) -> None:
        """Nothing is queued."""
