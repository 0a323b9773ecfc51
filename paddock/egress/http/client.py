"""The server's side of a connection: sends our bytes, hands on checked events, and is poisoned by any byte too many."""

import asyncio
from typing import Protocol, cast

from paddock.egress.http.answer import ResponseEvent, ResponseParser
from paddock.egress.http.message import UpstreamBroken


class Taker(Protocol):
    """Who takes the answer."""

    def answer(self, events: list[ResponseEvent]) -> None:
        """Checked events, in order."""

    def answer_failed(self, failure: UpstreamBroken) -> None:
        """No more will come, and the answer is not whole."""

    def upstream_full(self, full: bool) -> None:
        """Stop (or go on with) sending the request's body."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a server, one exchange at a time."""

    __slots__ = ("_parser", "_taker", "_transport", "answered", "closed", "idle_since", "key", "reused")

    def __init__(self, key: object) -> None:
        self.key = key
        self.closed = False
        self.answered = False  # a byte of the present answer has come: too late to send the request again
        self.reused = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._taker: Taker | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def begin(self, taker: Taker, *, head: bool) -> None:
        """The next answer goes to `taker`; `head` when the request's method is HEAD."""
        assert self._parser is None
        self._parser = ResponseParser(head=head)
        self._taker = taker
        self.answered = False

    def abort(self) -> None:
        """Drop the connection at once; nobody is told."""
        self._taker = self._parser = None
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def pause(self, paused: bool) -> None:
        """Stop reading the answer while the guest is slow."""
        if not self.closed:
            self.transport.pause_reading() if paused else self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self.abort()  # bytes that nobody asked for: the next answer on this connection could be a planted one
            return
        self.answered = True
        failure: UpstreamBroken | None = None
        try:
            parser.feed(data)
        except UpstreamBroken as broken:
            failure = broken
        self._deliver(parser, failure)

    def eof_received(self) -> bool:
        parser = self._parser
        if parser is not None:
            failure: UpstreamBroken | None = None
            try:
                parser.eof()
            except UpstreamBroken as broken:
                failure = broken
            self._deliver(parser, failure)
        self.closed = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        taker, self._taker, self._parser = self._taker, None, None
        if taker is not None:
            taker.answer_failed(UpstreamBroken("the connection to the server was lost"))

    def pause_writing(self) -> None:
        if self._taker is not None:
            self._taker.upstream_full(True)

    def resume_writing(self) -> None:
        if self._taker is not None:
            self._taker.upstream_full(False)

    def _deliver(self, parser: ResponseParser, failure: UpstreamBroken | None) -> None:
        taker, events = self._taker, parser.events
        assert taker is not None
        parser.events = []
        if parser.done:
            self._taker = self._parser = None
            if failure is not None or parser.response is None or not parser.response.keep_alive:
                self.closed = True
                self.transport.abort()
            failure = None  # the answer itself is whole
        elif failure is not None:
            self._taker = self._parser = None
            self.closed = True
            self.transport.abort()
        if events:
            taker.answer(events)
        if failure is not None:
            taker.answer_failed(failure)
