"""The server's side: one answer to one request, checked as strictly as the guest's bytes; the rest is poison."""

from collections.abc import Sequence
from typing import Final

import httptools

from paddock.egress.http.checks import fields_are_plain
from paddock.egress.http.message import (
    END,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_INTERIM,
    End,
    Framing,
    Header,
    Response,
    UpstreamBroken,
)

ResponseEvent = Response | bytes | End

_BODILESS: Final = frozenset({204, 304})
# Hop by hop, written anew, or an invitation to reach the server by another way than this fence.
_DROPPED: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authentication-info te trailer upgrade"
    b" transfer-encoding content-length alt-svc".split()
)


def check_response(status: int, version: str, fields: Sequence[Header], *, head: bool) -> Response:
    """The typed answer behind a parsed head; UpstreamBroken when its framing is not the only one possible."""
    if version not in ("1.1", "1.0") or not 200 <= status <= 599:
        raise UpstreamBroken("not an HTTP/1.1 answer")
    if not fields_are_plain(fields):
        raise UpstreamBroken("a header field holds bytes that are not allowed in one")
    kept: list[Header] = []
    named: set[bytes] = set()
    length: int | None = None
    chunked = False
    keep_alive = version == "1.1"
    encoding = b""
    for raw_name, value in fields:
        name = raw_name.lower()
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 15:
                raise UpstreamBroken("Content-Length is not one plain number")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise UpstreamBroken("Transfer-Encoding other than chunked")
            chunked = True
        elif name == b"content-encoding":
            encoding = encoding + b"," + value.lower() if encoding else value.lower()
        elif name == b"connection":
            options = {option.strip(b" \t") for option in value.lower().split(b",")}
            named |= options
            keep_alive = keep_alive and b"close" not in options
        if name not in _DROPPED:
            kept.append((raw_name, value))
    if chunked and length is not None:
        raise UpstreamBroken("both Content-Length and Transfer-Encoding")
    if named:
        kept = [(name, value) for name, value in kept if name.lower() not in named]
    if head or status in _BODILESS:
        framing = Framing.NONE
        chunked = False
    elif chunked:
        framing = Framing.CHUNKED
    elif length is not None:
        framing = Framing.LENGTH
    else:
        framing = Framing.CLOSE
    length = -1 if length is None else length
    return Response(status, tuple(kept), framing, length, keep_alive and framing is not Framing.CLOSE, encoding)


class ResponseParser:
    """Parses the answer to one request; interim answers are swallowed, anything after the end is UpstreamBroken."""

    def __init__(self, *, head: bool) -> None:
        self.events: list[ResponseEvent] = []
        self.response: Response | None = None
        self.done = False
        self._request_was_head = head
        self._buffer = b""
        self._interim = 0
        self._unmarked = 0
        self._fresh()

    def _fresh(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head_done = False
        self._body = False
        self._fields: list[Header] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take bytes of the server; new events are appended to `events`."""
        if self.done:
            raise UpstreamBroken("bytes after the end of the answer")
        while not self._body:
            seen = max(0, len(self._buffer) - 3)
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n", seen)
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise UpstreamBroken("the header is too large")
                return
            head, data, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :], b""
            self._take_head(head)
            if self.done and data:
                raise UpstreamBroken("bytes after the end of the answer")
            if not data:
                return
        self._unmarked += len(data)
        self._parse(data)
        if self._unmarked > MAX_HEAD_BYTES:
            raise UpstreamBroken("too many bytes that are not content")

    def eof(self) -> None:
        """The server closed: the end of a body without framing, else UpstreamBroken."""
        if self.done:
            return
        if self.response is None or self.response.framing is not Framing.CLOSE:
            raise UpstreamBroken("the server closed in the middle of its answer")
        self._end()

    def _take_head(self, head: bytes) -> None:
        if len(head) > MAX_HEAD_BYTES:
            raise UpstreamBroken("the header is too large")
        self._parse(head)
        if not self._head_done:
            raise UpstreamBroken("not a well-formed HTTP/1.1 answer")
        parser = self._parser
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM:
                raise UpstreamBroken("an interim answer that was not asked for")
            self._fresh()
            return
        response = check_response(status, parser.get_http_version(), self._fields, head=self._request_was_head)
        self._fields = []
        self._body = True
        self.response = response
        self.events.append(response)
        if response.framing is Framing.NONE or (response.framing is Framing.LENGTH and response.length == 0):
            self._end()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as failure:
            cause = failure.__context__
            raise cause if isinstance(cause, UpstreamBroken) else UpstreamBroken("not well-formed") from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise UpstreamBroken("not a well-formed HTTP/1.1 answer") from None

    def _end(self) -> None:
        if not self.done:
            self.done = True
            self.events.append(END)

    # What llhttp calls, in order.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        self._fields.append((name, value))
        if len(self._fields) > MAX_FIELDS * 2 or self._size > MAX_HEAD_BYTES:
            raise UpstreamBroken("too many header fields")

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        if self.done:
            raise UpstreamBroken("a body where there is none")
        self._unmarked = 0
        self.events.append(data)

    def on_message_begin(self) -> None:
        if self._head_done:
            raise UpstreamBroken("bytes after the end of the answer")

    def on_message_complete(self) -> None:
        # Right after a head this is llhttp's opinion about a body; ours is in check_response and is the stricter one.
        if self._body:
            self._end()
