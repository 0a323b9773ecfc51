"""Incremental parsers around llhttp, without sockets: bytes in, checked events out, every buffer bounded."""

from collections import deque
from typing import Final

import httptools

from paddock.egress.http.checks import check_request
from paddock.egress.http.message import (
    END,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    End,
    Header,
    Refused,
    Request,
    Why,
)

RequestEvent = Request | bytes | End

_MALFORMED: Final = "the bytes are not a well-formed HTTP/1.1 request"


class RequestParser:
    """The guest's side of a connection: `feed` fills `events`; after `error` is set nothing more is parsed."""

    __slots__ = ("_fields", "_in_head", "_parser", "_size", "_target", "_unmarked", "error", "events", "open")

    def __init__(self) -> None:
        self.events: deque[RequestEvent] = deque()
        self.error: Refused | None = None
        self.open = False  # a message has begun and not ended
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = True
        self._unmarked = 0  # bytes since the parser last told us of progress: bounds what it holds inside
        self._size = 0
        self._target = b""
        self._fields: list[Header] = []

    def feed(self, data: bytes) -> None:
        """Take bytes as they come; what they mean is appended to `events`, a violation is kept in `error`."""
        if self.error is not None:
            return
        if not self.open and data[:1] in (b"\r", b"\n"):
            self.error = Refused(400, Why.MALFORMED, _MALFORMED)
            return
        self._unmarked += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.error = self.error or Refused(501, Why.UNSUPPORTED, "protocol upgrades are not offered")
        except httptools.HttpParserCallbackError as failure:
            cause = failure.__context__
            self.error = cause if isinstance(cause, Refused) else Refused(400, Why.MALFORMED, _MALFORMED)
        except httptools.HttpParserError:
            self.error = Refused(400, Why.MALFORMED, _MALFORMED)
        else:
            if self._unmarked > MAX_HEAD_BYTES and self.error is None:
                self.error = Refused(431, Why.TOO_LARGE, "the header is too large")

    @property
    def whole(self) -> bool:
        """True when the message at the front of `events` has arrived to its end."""
        return END in self.events

    # What llhttp calls, in order.

    def on_message_begin(self) -> None:
        self.open = True
        self._in_head = True
        self._size = 0
        self._target = b""
        self._fields = []

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > MAX_TARGET_BYTES:
            raise Refused(414, Why.TOO_LARGE, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > MAX_HEAD_BYTES:
            raise Refused(431, Why.TOO_LARGE, "the header is too large")
        self._fields.append((name, value))
        if len(self._fields) > MAX_FIELDS:
            raise Refused(431, Why.TOO_LARGE, "too many header fields")

    def on_headers_complete(self) -> None:
        parser = self._parser
        method = parser.get_method().decode("ascii")
        self.events.append(check_request(method, self._target, parser.get_http_version(), self._fields))
        if parser.should_upgrade():
            raise Refused(501, Why.UNSUPPORTED, "protocol upgrades are not offered")
        self._in_head = False
        self._fields = []  # what comes now are trailers: counted, then dropped
        self._unmarked = 0

    def on_body(self, data: bytes) -> None:
        self._unmarked = 0
        self.events.append(data)

    def on_message_complete(self) -> None:
        self._unmarked = 0
        self.open = False
        self.events.append(END)
