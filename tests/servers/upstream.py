"""An HTTP(S) server that logs the exact bytes it got and can give a credential back in every usual disguise."""

import asyncio
import base64
import gzip
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import quote, unquote

Answer = Callable[["Received"], list[bytes]]


@dataclass
class Received:
    """One request as it came."""

    head: bytes
    body: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        return unquote(self.line.split(" ")[1].partition("?")[0])

    def one(self, name: str) -> str:
        values = self.headers.get(name, [])
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    @property
    def secret(self) -> str:
        value = (self.headers.get("authorization") or self.headers.get("x-api-key") or ["none"])[0]
        return value.removeprefix("Bearer ")


class Upstream:
    """`async with Upstream(context) as server`, then `server.port`, `.requests`, `.connections`, `.raw`."""

    def __init__(self, context: ssl.SSLContext | None = None, answer: Answer | None = None) -> None:
        self._context = context
        self._answer = answer or echo
        self.requests: list[Received] = []
        self.connections = 0
        self.raw = bytearray()
        self.port = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                received = await self._read(reader)
                self.requests.append(received)
                await self.hold.wait()
                for piece in self._answer(received):
                    if piece == CUT:
                        writer.transport.abort()
                        return
                    if piece == CLOSE:
                        return
                    writer.write(piece)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received:
        head = await reader.readuntil(b"\r\n\r\n")
        self.raw += head
        received = Received(head)
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.decode("latin-1").partition(":")
            received.headers.setdefault(name.lower(), []).append(value.strip())
        if received.headers.get("transfer-encoding"):
            while size := int((await reader.readline()).strip(), 16):
                received.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        elif length := received.headers.get("content-length"):
            received.body = await reader.readexactly(int(length[0]))
        self.raw += received.body
        return received


CUT = b"\0cut"
CLOSE = b"\0close"


def full(body: bytes, *fields: str, status: str = "200 OK") -> list[bytes]:
    """A whole answer with Content-Length."""
    more = "".join(f"{f}\r\n" for f in fields)
    return [f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body]


def chunked(parts: list[bytes], *fields: str, trailer: str = "") -> list[bytes]:
    """A chunked answer, one write a chunk."""
    more = "".join(f"{f}\r\n" for f in fields)
    head = f"HTTP/1.1 200 OK\r\n{more}Transfer-Encoding: chunked\r\n\r\n".encode("latin-1")
    chunks = [b"%x\r\n%s\r\n" % (len(p), p) for p in parts]
    return [head, *chunks, f"0\r\n{trailer}\r\n".encode("latin-1")]


def echo(received: Received) -> list[bytes]:
    """Answers according to the path: `/echo/<disguise>` gives the credential back, `/` a plain body."""
    secret = received.secret
    data = secret.encode("latin-1")
    how = received.path.removeprefix("/echo/")
    b64 = base64.b64encode
    bodies: dict[str, bytes] = {
        "raw": b"<" + data + b">",
        "twice": data + data,
        "bearer": b"Bearer " + data,
        "base64-0": b64(data),
        "base64-1": b64(b"u" + data),
        "base64-2": b64(b"u:" + data),
        "base64-3": b64(b"x-access-token:" + data + b"\n"),
        "base64url": base64.urlsafe_b64encode(b"??>" + data),
        "hex": data.hex().encode(),
        "HEX": data.hex().upper().encode(),
        "percent": quote(secret, safe="").encode(),
        "percent-all": "".join(f"%{b:02X}" for b in data).encode(),
        "percent-all-lower": "".join(f"%{b:02x}" for b in data).encode(),
        "json": json.dumps({"got": secret}).encode(),
        "error-page": b"<html>bad token " + data + b"</html>",
        "headers": received.head,
    }
    if how in bodies:
        return full(bodies[how], "Content-Type: text/plain")
    if how == "header":
        return full(b"ok", f"X-Echo: {secret}", f"X-Echo-Basic: {b64(b'u:' + data).decode()}")
    if how == "header-name":
        return full(b"ok", f"X-{secret}: 1", f"X-{secret.lower()}: 1", "X-Fine: 1")
    if how == "location":
        return full(b"", f"Location: https://api.test.example/?t={quote(secret, safe='')}", status="302 Found")
    if how == "cookie":
        return full(b"ok", f"Set-Cookie: t={secret}; Path=/", f"WWW-Authenticate: Bearer realm={secret}")
    if how == "reason":
        return full(b"ok", status=f"200 {secret}")
    if how == "split":
        return chunked([bytes([b]) for b in b"a" + data + b"z"])
    if how == "split-writes":
        body = b"a" + data + b"z"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return [head, *(bytes([b]) for b in body)]
    if how == "trailer":
        return chunked([b"ok"], "Trailer: X-T", trailer=f"X-T: {secret}\r\n")
    if how == "gzip":
        return full(gzip.compress(b"zipped " + data), "Content-Encoding: gzip")
    if how == "br":
        return full(b"\x0b\x02\x80" + data, "Content-Encoding: br")
    if how == "interim":
        return [f"HTTP/1.1 103 Early Hints\r\nLink: <{secret}>\r\n\r\n".encode(), *full(b"ok")]
    if how == "until-close":
        return [b"HTTP/1.1 200 OK\r\n\r\n", data[:5], data[5:], CLOSE]
    if how == "broken":
        return [f"HTTP/1.1 200 OK\r\nX-A: {secret}\0\r\n\r\n".encode()]
    if received.line.startswith("HEAD"):
        return [f"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-Echo: {secret}\r\n\r\n".encode("latin-1")]
    return full(b"plain:" + received.body, "Content-Type: text/plain")
