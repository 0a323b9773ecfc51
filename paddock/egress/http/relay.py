"""Carries one request's body to the server and its answer back, both ways at once, buffering only a window."""

import asyncio

from paddock.egress.credentials.scrub import Scrubber
from paddock.egress.http.answer import ResponseEvent
from paddock.egress.http.client import UpstreamConnection
from paddock.egress.http.message import End, Framing, Refused, Request, Response, UpstreamBroken
from paddock.egress.http.server import ANSWER_S, GuestHttp
from paddock.egress.http.wire import CONTINUE, LAST_CHUNK, chunk, response_head


class Relay:
    """One exchange between a guest and a server; `done` ends with None, or with why it broke."""

    __slots__ = (
        "_chunked_in",
        "_chunked_out",
        "_guest",
        "_request",
        "_scrubber",
        "_upstream",
        "bytes_in",
        "bytes_out",
        "done",
        "status",
    )

    def __init__(
        self, guest: GuestHttp, upstream: UpstreamConnection, request: Request, scrubber: Scrubber | None
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0  # of the answer, once its head was sent to the guest
        self.bytes_in = 0
        self.bytes_out = 0
        self._guest = guest
        self._upstream = upstream
        self._request = request
        self._scrubber = scrubber
        self._chunked_in = request.framing is Framing.CHUNKED
        self._chunked_out = False

    @property
    def findings(self) -> int:
        """How often a secret stood in the answer."""
        return 0 if self._scrubber is None else self._scrubber.findings

    def start(self, head: bytes) -> None:
        """Send the request's head and let both directions run."""
        self._upstream.begin(self, head=self._request.method == "HEAD")
        self._upstream.transport.write(head)
        if self._request.expects_continue:
            self._guest.write(CONTINUE)
        self._guest.relay_to(self)

    def _fail(self, failure: Exception) -> None:
        self._upstream.abort()
        if not self.done.done():
            self.done.set_exception(failure)

    # From the guest.

    def body(self, data: bytes) -> None:
        self.bytes_out += len(data)
        if not self._upstream.closed:
            self._upstream.transport.write(chunk(data) if self._chunked_in else data)

    def body_end(self) -> None:
        if self._chunked_in and not self._upstream.closed:
            self._upstream.transport.write(LAST_CHUNK)

    def guest_broken(self, refused: Refused) -> None:
        self._fail(refused)

    def guest_full(self, full: bool) -> None:
        self._upstream.pause(full)

    # From the server.

    def upstream_full(self, full: bool) -> None:
        self._guest.hold(full)

    def answer(self, events: list[ResponseEvent]) -> None:
        if self.done.done():
            return
        self._guest.touch(ANSWER_S)
        out: list[bytes] = []
        ended = False
        try:
            for event in events:
                if isinstance(event, bytes):
                    self.bytes_in += len(event)
                    self._put(out, event if self._scrubber is None else self._scrubber.body(event))
                elif isinstance(event, End):
                    if self._scrubber is not None:
                        self._put(out, self._scrubber.end())
                    if self._chunked_out:
                        out.append(LAST_CHUNK)
                    ended = True
                else:
                    out.append(self._head(event))
        except UpstreamBroken as broken:
            if self.status and out:
                self._guest.write(b"".join(out))
            self._fail(broken)
            return
        self._guest.write(b"".join(out))
        if ended and not self.done.done():
            self.done.set_result(None)

    def answer_failed(self, failure: UpstreamBroken) -> None:
        self._fail(failure)

    def _put(self, out: list[bytes], data: bytes) -> None:
        if data:
            out.append(chunk(data) if self._chunked_out else data)

    def _head(self, response: Response) -> bytes:
        headers = response.headers
        length: int | None = response.length if response.length >= 0 else None
        if self._scrubber is not None:
            headers = tuple(self._scrubber.headers(headers, response.encoding))
            length = None if length else length
        bodiless = response.framing is Framing.NONE
        if response.status in (204, 304):
            length = None
        self._chunked_out = not bodiless and length is None
        self.status = response.status
        close = not self._request.keep_alive
        return response_head(response.status, headers, length=length, chunked=self._chunked_out, close=close)
