"""Our own rules for a request's head, after llhttp has split it: what servers read differently is refused here."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from paddock.egress.http.message import Framing, Header, Refused, Request, Why

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BODILESS: Final = frozenset({"GET", "HEAD"})

_LABEL: Final = rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rb"(?=.{1,253}(?::|\.?\Z|\.:))((?:" + _LABEL + rb"\.)*" + _LABEL + rb")\.?(?::([0-9]{1,5}))?")
_NUMERIC: Final = re.compile(rb"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # 127.1, 2130706433, 0x7f000001: addresses to some
_PATH: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_BAD_PATH: Final = re.compile(rb"//|/\.{1,2}(?:/|\Z)|%(?:2[eE5]|5[cC]|3[bBfF]|[01][0-9a-fA-F]|7[fF])|%[uU]")
_QUERY: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|{}^`\"<>\\]*")
_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}(?:\n[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256})*")
_VALUES: Final = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_OVERRIDE: Final = re.compile(rb"(?:^|[&;])_method(?:=|&|;|$)", re.IGNORECASE)

# Never forwarded: hop by hop, written anew by us, or a second opinion on method, path, host or client.
_DROPPED: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer http2-settings"
    b" transfer-encoding content-length host expect x-http-method x-http-method-override x-method-override"
    b" x-original-url x-original-host x-original-uri x-rewrite-url x-host x-real-ip forwarded via".split()
)
_SINGLE: Final = frozenset(b"host content-length transfer-encoding content-type authorization expect upgrade".split())
_CONNECTION: Final = frozenset((b"close", b"keep-alive", b"te", b""))


def _dropped(name: bytes) -> bool:
    dashed = name.replace(b"_", b"-") if b"_" in name else name  # CGI-like servers read X_Y as X-Y
    return dashed in _DROPPED or dashed.startswith(b"x-forwarded-") or (dashed is not name and dashed in _SINGLE)


def fields_are_plain(fields: Sequence[Header]) -> bool:
    """True when every field's name is a token and no value holds control bytes."""
    # One scan over all of them: the separator is a byte that is itself forbidden, and is counted.
    names = b"\n".join([name for name, _ in fields])
    values = b"\n".join([value for _, value in fields])
    breaks = max(0, len(fields) - 1)
    return (
        names.count(b"\n") == breaks
        and values.count(b"\n") == breaks
        and (not fields or _NAMES.fullmatch(names) is not None)
        and _VALUES.fullmatch(values) is not None
    )


@lru_cache(maxsize=256)
def split_host(value: bytes) -> tuple[str, int | None]:
    """Name (lower case, no trailing dot) and port of a Host value; Refused for anything but an ASCII host name."""
    found = _HOST.fullmatch(value.lower())
    if found is None or _NUMERIC.fullmatch(found[1]):
        raise Refused(400, Why.MALFORMED, "Host is not a plain host name")
    port = int(found[2]) if found[2] is not None else None
    if port is not None and not 0 < port < 65536:
        raise Refused(400, Why.MALFORMED, "Host holds a port that does not exist")
    return found[1].decode("ascii"), port


def split_target(target: bytes) -> tuple[str, bytes | None]:
    """Path and query of an origin-form target; Refused for every spelling that two servers could read differently."""
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/"):
        raise Refused(400, Why.UNSUPPORTED, "only origin-form targets (/path): this fence is not an explicit proxy")
    if not _PATH.fullmatch(path) or _BAD_PATH.search(path):
        raise Refused(400, Why.MALFORMED, "the path is not in its plain form (dot segments, //, ;, encoded separators)")
    if b"%" in path:
        try:
            unquote_to_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(400, Why.MALFORMED, "the path's encoded bytes are not UTF-8") from None
    if mark and not _QUERY.fullmatch(query):
        raise Refused(400, Why.MALFORMED, "the query holds bytes that must be percent-encoded")
    if query and _OVERRIDE.search(unquote_to_bytes(query)):
        raise Refused(400, Why.UNSUPPORTED, "_method in the query would override the method")
    return path.decode("ascii"), query if mark else None


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 15:
        raise Refused(400, Why.MALFORMED, "Content-Length is not one plain number")
    return int(value)


def check_request(method: str, target: bytes, version: str, fields: Sequence[Header]) -> Request:
    """The typed request behind a parsed head, or Refused; `fields` are as received, in order."""
    if version != "1.1":
        raise Refused(505, Why.UNSUPPORTED, "only HTTP/1.1")
    if method == "CONNECT":
        raise Refused(405, Why.UNSUPPORTED, "CONNECT: this fence is not an explicit proxy; connect to the host by name")
    if method not in METHODS:
        raise Refused(405, Why.UNSUPPORTED, "this method is never forwarded")
    path, query = split_target(target)
    if not fields_are_plain(fields):
        raise Refused(400, Why.MALFORMED, "a header field holds bytes that are not allowed in one")
    host: bytes | None = None
    length: int | None = None
    chunked = expects = False
    keep_alive = True
    seen: set[bytes] = set()
    kept: list[Header] = []
    for raw_name, value in fields:
        name = raw_name.lower()
        if name in _SINGLE:
            if name in seen:
                raise Refused(400, Why.MALFORMED, f"more than one {name.decode()}")
            seen.add(name)
            value = value.strip(b" \t")
            if name == b"host":
                host = value
            elif name == b"content-length":
                length = _length(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise Refused(400, Why.UNSUPPORTED, "Transfer-Encoding other than chunked")
                chunked = True
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise Refused(417, Why.UNSUPPORTED, "Expect other than 100-continue")
                expects = True
            elif name == b"upgrade":
                words = "WebSocket is not in this version" if value.lower() == b"websocket" else "protocol upgrades"
                raise Refused(501, Why.UNSUPPORTED, f"{words}: send plain HTTP/1.1 requests")
        elif name == b"connection":
            options = {option.strip(b" \t") for option in value.lower().split(b",")}
            if b"upgrade" in options:
                raise Refused(501, Why.UNSUPPORTED, "protocol upgrades: send plain HTTP/1.1 requests")
            if not options <= _CONNECTION:
                raise Refused(400, Why.MALFORMED, "Connection names end-to-end header fields")
            keep_alive = keep_alive and b"close" not in options
        if not _dropped(name):
            kept.append((name, value))
    if host is None:
        raise Refused(400, Why.MALFORMED, "no Host")
    if chunked and length is not None:
        raise Refused(400, Why.MALFORMED, "both Content-Length and Transfer-Encoding")
    if method in _BODILESS and (chunked or length):
        raise Refused(400, Why.UNSUPPORTED, "a GET or HEAD with a body: servers disagree about where it ends")
    name_, port = split_host(host)
    framing = Framing.CHUNKED if chunked else Framing.LENGTH if length is not None else Framing.NONE
    if method in _BODILESS:
        framing = Framing.NONE
    expects = expects and (chunked or bool(length))
    return Request(method, path, query, name_, port, tuple(kept), framing, length or 0, expects, keep_alive)
