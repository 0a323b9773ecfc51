"""A TLS stream under test: inner protocols, a server on loopback, and a client that speaks raw records."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from paddock.egress.tls.authority import Authority
from paddock.egress.tls.hello import HelloParser
from paddock.egress.tls.stream import TlsServerStream

AUTHORITY = Authority("sb-test", time.time)
NAME = "api.example.com"


class Inner(asyncio.Protocol):
    """Records what it is told; `act` is called with every piece."""

    def __init__(self, act: "Callable[[Inner, bytes], None] | None" = None, *, stay: bool = False) -> None:
        self.act = act
        self.stay = stay
        self.got = bytearray()
        self.transport: TlsServerStream | None = None
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsServerStream)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.act:
            self.act(self, data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.stay

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Sniffer(asyncio.Protocol):
    """As the gateway does: reads the hello, then puts the stream in its own place."""

    def __init__(self, inner: Inner, failed: list[str], handshake_s: float) -> None:
        self.inner, self.failed, self.handshake_s = inner, failed, handshake_s
        self.parser = HelloParser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        hello = self.parser.feed(data)
        if hello is not None:
            stream = TlsServerStream(
                AUTHORITY.context(hello.sni or NAME),
                self.inner,
                first=self.parser.buffered,
                handshake_s=self.handshake_s,
                on_failed=self.failed.append,
            )
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.set_protocol(stream)
            stream.connection_made(self.transport)


class Server:
    """One listening socket whose connections all go to `inner`."""

    def __init__(self, inner: Inner, *, handshake_s: float = 10.0) -> None:
        self.inner, self.handshake_s = inner, handshake_s
        self.failed: list[str] = []
        self.port = 0

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        make = lambda: Sniffer(self.inner, self.failed, self.handshake_s)  # noqa: E731
        self._server = await loop.create_server(make, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def client(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or trusting(), server_hostname=NAME, limit=1 << 20
        )


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.ca_pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class Raw:
    """A client that says exactly what the test says: OpenSSL over memory, bytes over a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None) -> "Raw":
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(sock, context or trusting())

    async def send(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self.outgoing.read())

    async def receive(self) -> bytes:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), 10)
        self.incoming.write(data)
        return data

    async def hello(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        await self.send()

    async def shake(self) -> None:
        await self.hello()
        while not await self._done():
            assert await self.receive(), "the server closed during the handshake"

    async def _done(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            await self.send()
        return True


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)
