"""One bounded HTTP request: a deadline for its whole answer, a limit on its size, no proxy and no redirect."""

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from paddock.bootstrap.errors import NotYet

MOST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` may be a secret."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def fetch(
    url: str,
    *,
    what: str,
    timeout_s: float,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    ca: Path | None = None,
) -> Answer:
    """The answer of `url`, whatever its status; `what` names the other side in errors.

    Raises NotYet when it can't be reached, is silent for `timeout_s`, or speaks no HTTP of at most 64 KiB.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_s, ca, what)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    late = threading.Event()
    try:
        connection.connect()
        # A socket's own time-out begins again with every byte: this one is for the whole answer.
        watch = threading.Timer(timeout_s, _cut, (connection.sock, late))
        watch.daemon = True
        watch.start()
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            data = answer.read(MOST_BYTES + 1)
        finally:
            watch.cancel()
    except ssl.SSLCertVerificationError as wrong:
        raise NotYet(f"{what}: its certificate is not accepted: {wrong.verify_message}", field=_place(url)) from None
    except (OSError, ValueError, http.client.HTTPException) as wrong:  # ValueError: a header that cannot be sent
        if late.is_set() or isinstance(wrong, TimeoutError):
            words = f"did not answer within {timeout_s:g} s"
        else:
            words = f"cannot be reached, or speaks no HTTP ({type(wrong).__name__})"
        raise NotYet(f"{what} {words}", field=_place(url)) from None
    finally:
        connection.close()
    if late.is_set():
        raise NotYet(f"{what} did not answer within {timeout_s:g} s", field=_place(url))
    if len(data) > MOST_BYTES:
        raise NotYet(f"{what} answered more than {MOST_BYTES >> 10} KiB", field=_place(url))
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)


def _connection(
    scheme: str, host: str, port: int | None, timeout_s: float, ca: Path | None, what: str
) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        trust = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as wrong:
        raise NotYet(f"{what}: its authority cannot be read: {wrong}", field=str(ca)) from None
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=trust)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        # The plain socket's: that of a TLS socket changes what another thread is reading from.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
