"""A bounded, incremental reader of the TLS ClientHello (RFC 8446 4.1.2), in whatever records and pieces it comes."""

from dataclasses import dataclass
from enum import IntEnum

from paddock.policy.hosts import canonical

MAX_HELLO = 64 << 10
MAX_RECORDS = 64
_MAX_RECORD = 1 << 14
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SNI, _ALPN, _VERSIONS, _ECH = 0, 16, 43, 0xFE0D


class Alert(IntEnum):
    """Descriptions of RFC 8446 section 6 that we send."""

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    UNRECOGNIZED_NAME = 112


class BadHello(Exception):
    """Not a ClientHello that we take; `alert` is what to answer, the text never repeats the guest's bytes."""

    def __init__(self, alert: Alert, message: str) -> None:
        super().__init__(message)
        self.alert = alert


@dataclass(frozen=True, slots=True)
class Hello:
    """What the client says first: `sni` is canonical, None when there is none; `ech` may be real or GREASE."""

    sni: str | None
    alpn: tuple[str, ...]
    ech: bool
    tls13: bool


def is_tls(data: bytes | bytearray) -> bool:
    """Whether a stream that begins with these bytes (one or more) can be TLS: a handshake record of version 3.x."""
    return data[0] == _HANDSHAKE and (len(data) < 2 or data[1] == 3)


def alert_bytes(alert: Alert) -> bytes:
    """A fatal alert in clear, as it is sent before any keys exist."""
    return bytes((21, 3, 3, 0, 2, 2, alert))


class HelloParser:
    """Feed it the stream's bytes until it answers; `buffered` is all it was fed, for whoever takes the stream over."""

    def __init__(self) -> None:
        self.buffered = bytearray()
        self._message = bytearray()
        self._at = 0
        self._records = 0

    def feed(self, data: bytes) -> Hello | None:
        """The hello once it is whole, None before. Raises BadHello."""
        self.buffered += data
        if len(self.buffered) > MAX_HELLO + MAX_RECORDS * 5 + _MAX_RECORD:
            raise BadHello(Alert.RECORD_OVERFLOW, "more bytes than a TLS hello may have")
        while True:
            whole = self._hello()
            if whole is not None:
                return _parse(whole)
            if not self._record():
                return None

    def _record(self) -> bool:
        head = self.buffered[self._at : self._at + 5]
        if head and not is_tls(head):
            raise BadHello(Alert.UNEXPECTED_MESSAGE, "not a TLS handshake record")
        if len(head) < 5:
            return False
        size = int.from_bytes(head[3:5], "big")
        if not 0 < size <= _MAX_RECORD:
            raise BadHello(Alert.RECORD_OVERFLOW, "a TLS record of an impossible size")
        end = self._at + 5 + size
        if end > len(self.buffered):
            return False
        self._records += 1
        if self._records > MAX_RECORDS:
            raise BadHello(Alert.RECORD_OVERFLOW, "the TLS hello is cut into too many records")
        self._message += self.buffered[self._at + 5 : end]
        self._at = end
        return True

    def _hello(self) -> bytes | None:
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            raise BadHello(Alert.UNEXPECTED_MESSAGE, "the first TLS message is no ClientHello")
        if len(message) < 4:
            return None
        size = int.from_bytes(message[1:4], "big")
        if size > MAX_HELLO:
            raise BadHello(Alert.RECORD_OVERFLOW, "the TLS hello is too long")
        if len(message) < 4 + size:
            return None
        if len(message) > 4 + size:
            raise BadHello(Alert.UNEXPECTED_MESSAGE, "bytes behind the TLS hello in its record")
        return bytes(message[4:])


class _Cursor:
    """Length-prefixed vectors that cannot be read past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise BadHello(Alert.DECODE_ERROR, "the TLS hello is malformed")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> "_Cursor":
        return _Cursor(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def done(self) -> None:
        if self:
            raise BadHello(Alert.DECODE_ERROR, "the TLS hello is malformed")


def _parse(body: bytes) -> Hello:
    cursor = _Cursor(body)
    version = cursor.number(2)
    cursor.take(32)
    cursor.vector(1)
    cursor.vector(2)
    cursor.vector(1)
    extensions = cursor.vector(2) if cursor else _Cursor(b"")
    cursor.done()
    seen: dict[int, _Cursor] = {}
    while extensions:
        kind = extensions.number(2)
        if kind in seen:
            # Two SNIs are how one reader is shown another name than the next one.
            raise BadHello(Alert.DECODE_ERROR, "the TLS hello has an extension twice")
        seen[kind] = extensions.vector(2)
    sni = _server_name(seen[_SNI]) if _SNI in seen else None
    alpn = _protocols(seen[_ALPN]) if _ALPN in seen else ()
    versions = _versions(seen[_VERSIONS]) if _VERSIONS in seen else frozenset({version})
    if not versions & {0x0303, 0x0304}:
        raise BadHello(Alert.PROTOCOL_VERSION, "TLS older than 1.2")
    return Hello(sni, alpn, _ECH in seen, 0x0304 in versions)


def _server_name(cursor: _Cursor) -> str:
    names = cursor.vector(2)
    cursor.done()
    kind = names.number(1)
    raw = names.vector(2).rest()
    names.done()
    name = canonical(raw.decode("ascii", "replace")) if kind == 0 else None
    if name is None:
        raise BadHello(Alert.UNRECOGNIZED_NAME, "the TLS hello's server name is no host name")
    return name


def _protocols(cursor: _Cursor) -> tuple[str, ...]:
    names = cursor.vector(2)
    cursor.done()
    found: list[str] = []
    while names:
        found.append(names.vector(1).rest().decode("ascii", "backslashreplace"))
    return tuple(found)


def _versions(cursor: _Cursor) -> frozenset[int]:
    names = cursor.vector(1)
    cursor.done()
    found: set[int] = set()
    while names:
        found.add(names.number(2))
    return frozenset(found)
