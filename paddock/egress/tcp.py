"""Joins a captured connection to a server's, byte for byte: nothing is looked into, everything is counted."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

IDLE_S: Final = 3600.0


class Side(asyncio.Protocol):
    """One end of a splice; what it reads, the other end writes."""

    __slots__ = ("_early", "_eof", "_splice", "closed", "count", "other", "transport")

    def __init__(self, splice: "Splice") -> None:
        self._splice = splice
        self._early: list[bytes] = []
        self._eof = False
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.count = 0  # bytes read here
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self._splice.moved()
        self._pass_on(data)

    def eof_received(self) -> bool:
        self._eof = True
        other = self.other
        if other is not None and other.transport is not None and not other.closed:
            if other.transport.can_write_eof():
                other.transport.write_eof()
            else:
                other.transport.close()
        self._splice.half_done()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._splice.lost(exc)

    def pause_writing(self) -> None:
        transport = self.other.transport if self.other is not None else None
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_writing(self) -> None:
        transport = self.other.transport if self.other is not None else None
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def join(self, other: "Side") -> None:
        """From now on `other` writes what is read here."""
        self.other = other
        early, self._early = self._early, []
        for data in early:
            self._pass_on(data)
        if self._eof:
            self.eof_received()

    @property
    def finished(self) -> bool:
        """True when no more will be read here."""
        return self._eof or self.closed

    def _pass_on(self, data: bytes) -> None:
        other = self.other
        if other is None:
            self._early.append(data)
        elif other.transport is not None and not other.closed:
            other.transport.write(data)


class Splice:
    """Two joined connections; `done` ends when both are through."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.guest = Side(self)
        self.server = Side(self)
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.deadline = time() + IDLE_S
        self._time = time

    def join(self) -> None:
        """Both ends are connected: let the bytes flow."""
        self.guest.join(self.server)
        self.server.join(self.guest)

    def moved(self) -> None:
        """A byte moved: the deadline is far again."""
        self.deadline = self._time() + IDLE_S

    def half_done(self) -> None:
        """One direction is through; both: close."""
        if self.guest.finished and self.server.finished:
            self.lost(None)

    def lost(self, exc: Exception | None) -> None:
        """One end is gone: what the other was sent may still be read, nothing more comes."""
        for side in (self.guest, self.server):
            if not side.closed and side.transport is not None:
                side.transport.abort() if exc is not None else side.transport.close()
        if not self.done.done():
            self.done.set_result("whole" if exc is None else "broken")

    def tick(self, now: float) -> None:
        """Called now and then: ends what has been silent for an hour."""
        if now >= self.deadline:
            self.abort("timeout")

    def abort(self, why: str) -> None:
        """Cut both ends at once."""
        if not self.done.done():
            self.done.set_result(why)
        for side in (self.guest, self.server):
            if not side.closed and side.transport is not None:
                side.transport.abort()
