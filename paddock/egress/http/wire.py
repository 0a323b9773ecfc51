"""Our own bytes for a checked message: own framing, own Host, own order; nothing received is copied unparsed."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from paddock.egress.http.message import Framing, Header, Request

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


def request_head(request: Request, authority: bytes, headers: Sequence[Header]) -> bytes:
    """Head of the request as the server sees it; `authority` is what goes into Host."""
    lines = [request.method.encode("ascii") + b" " + request.target + b" HTTP/1.1\r\nhost: " + authority]
    lines += [name + b": " + value for name, value in headers]
    if request.framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked")
    elif request.framing is Framing.LENGTH:
        lines.append(b"content-length: %d" % request.length)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def response_head(status: int, headers: Sequence[Header], *, length: int | None, chunked: bool, close: bool) -> bytes:
    """Head of the answer as the guest sees it, with the standard's reason phrase instead of the server's."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown" % status]
    lines += [name + b": " + value for name, value in headers]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif length is not None:
        lines.append(b"content-length: %d" % length)
    if close:
        lines.append(b"connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def chunk(data: bytes) -> bytes:
    """One chunk; empty data gives no bytes, for an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
