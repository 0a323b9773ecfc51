"""The guest's side of a connection: hostile bytes become requests, one at a time, bounded in size and time."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from paddock.egress.http.message import End, Refused, Request, Why
from paddock.egress.http.parse import RequestParser

IDLE_S: Final = 120.0  # between requests
HEAD_S: Final = 30.0  # from the first byte of a head to its last
WORK_S: Final = 120.0  # deciding, recording, dialling
BODY_S: Final = 120.0  # without a byte of a body that was announced
ANSWER_S: Final = 600.0  # until the first byte of an answer, and between bytes of one (long polls, models that think)
_HIGH_BYTES: Final = 256 << 10


class Peer(Protocol):
    """Who takes a request's body, and hears what happens to the guest meanwhile."""

    def body(self, data: bytes) -> None:
        """The next bytes of the body."""

    def body_end(self) -> None:
        """The body is whole."""

    def guest_broken(self, refused: Refused) -> None:
        """The guest has gone, broke its message off, or was too slow."""

    def guest_full(self, full: bool) -> None:
        """Stop (or go on) sending to the guest."""


class GuestHttp(asyncio.Protocol):
    """HTTP/1.1 with a guest, over a transport that is already the right one (plain, or decrypted)."""

    def __init__(self, on_made: Callable[["GuestHttp"], None], time: Callable[[], float]) -> None:
        self.lost = False
        self.body_done = True  # the body of the present request was handed on to its end
        self.deadline = time() + IDLE_S
        self._on_made = on_made
        self._time = time
        self._parser = RequestParser()
        self._events = self._parser.events
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._peer: Peer | None = None
        self._eof = False
        self._full = False
        self._buffered = 0
        self._held = False
        self._paused = False

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    async def request(self) -> Request | None:
        """The next request's head; None when the guest has gone; Refused for bytes that are no request."""
        while not self._events:
            if self._parser.error is not None:
                raise self._parser.error
            if self.lost or self._eof:
                return None
            self._buffered = 0
            self.deadline = self._time() + (HEAD_S if self._parser.open else IDLE_S)
            self._flow()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        head = self._events.popleft()
        if not isinstance(head, Request):
            raise Refused(400, Why.MALFORMED, "a body without a request")
        if self._parser.error is not None and not self._parser.whole:
            raise self._parser.error
        self.body_done = False
        self.deadline = self._time() + WORK_S
        return head

    def relay_to(self, peer: Peer) -> None:
        """From now on the body goes to `peer`, what has already come at once."""
        self._peer = peer
        self.touch(ANSWER_S)
        if self._full:
            peer.guest_full(True)
        self._drain()
        if self.lost:
            peer.guest_broken(Refused(400, Why.MALFORMED, "the guest has gone"))

    def release(self) -> None:
        """The present request's answer is sent or given up."""
        self._peer = None
        self.hold(False)

    def hold(self, held: bool) -> None:
        """Stop reading from the guest while the server is slow."""
        self._held = held
        self._flow()

    def write(self, data: bytes) -> None:
        """Send our own bytes."""
        if not self.lost:
            self.transport.write(data)

    def close(self) -> None:
        """Send what was written, then close."""
        if self._transport is not None and not self.lost:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None and not self.lost:
            self._transport.abort()

    def touch(self, seconds: float) -> None:
        """Something moved: the deadline is `seconds` away again."""
        self.deadline = self._time() + seconds

    def tick(self, now: float) -> None:
        """Called now and then: ends what has been too slow."""
        if now < self.deadline or self.lost:
            return
        self.deadline = now + IDLE_S
        late = Refused(408, Why.TIMEOUT, "the request or its answer stood still for too long")
        if self._peer is not None:
            self._peer.guest_broken(late)
        elif self._waiter is not None and self._parser.open:
            self._parser.error = self._parser.error or late
            self._wake()
        else:
            self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        was_open = parser.open
        parser.feed(data)
        self._buffered += len(data)
        if self._peer is not None and not self.body_done:
            self.touch(BODY_S if parser.open else ANSWER_S)
            self._drain()
        elif self._events or parser.error is not None:
            self._wake()
        elif parser.open and not was_open:
            self.deadline = self._time() + HEAD_S
        self._flow()

    def eof_received(self) -> bool:
        # A half-closed guest may still read its answer; a message that isn't whole never will be.
        self._eof = True
        if self._parser.open:
            self._parser.error = self._parser.error or Refused(400, Why.MALFORMED, "the request ends in its middle")
            if self._peer is not None and not self.body_done:
                self._drain()
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._wake()
        if self._peer is not None:
            self._peer.guest_broken(Refused(400, Why.MALFORMED, "the guest has gone"))

    def pause_writing(self) -> None:
        self._full = True
        if self._peer is not None:
            self._peer.guest_full(True)

    def resume_writing(self) -> None:
        self._full = False
        if self._peer is not None:
            self._peer.guest_full(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drain(self) -> None:
        peer, events = self._peer, self._events
        while events and not self.body_done and peer is not None:
            event = events.popleft()
            if isinstance(event, End):
                self.body_done = True
                peer.body_end()
            elif isinstance(event, bytes):
                peer.body(event)
        if not events:
            self._buffered = 0
            error = self._parser.error
            if error is not None and not self.body_done and peer is not None:
                peer.guest_broken(error)
        self._flow()

    def _flow(self) -> None:
        pause = self._held or self._buffered > _HIGH_BYTES
        if pause != self._paused and not self.lost and self._transport is not None:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
