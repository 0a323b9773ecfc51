"""How a TLS stream ends: closed, cut, damaged, refused, timed out."""

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


async def test_closing_sends_what_was_written_and_close_notify() -> None:
    def act(self: Inner, _: bytes) -> None:
        self.write(b"last words")
        assert self.transport is not None
        self.transport.close()
        self.write(b"never sent")
        assert self.transport.is_closing()

    inner = Inner(act)
    async with Server(inner) as server:
        client = await Raw.connect(server.port)
        await client.shake()
        client.tls.write(b"x")
        await client.send()
        while await client.receive():
            pass
        client.incoming.write_eof()
        assert client.tls.read(100) == b"last words"
        # Without close_notify this would raise SSLEOFError.
        assert client.tls.read(100) == b""
        assert await asyncio.wait_for(inner.lost, 10) is None
        client.sock.close()


async def test_a_clients_close_notify_is_an_end_and_not_an_error() -> None:
    inner = Inner()
    async with Server(inner) as server:
        _, writer = await server.client()
        writer.close()
        assert await asyncio.wait_for(inner.lost, 10) is None
        assert inner.events == ["made", "eof", "lost"]


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    inner = Inner(stay=True)
    async with Server(inner) as server:
        client = await Raw.connect(server.port)
        await client.shake()
        client.tls.write(b"question")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.send()
        client.sock.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in inner.events, "no end seen")
        assert inner.got == b"question"
        for _ in range(20):
            await asyncio.sleep(0.002)
        inner.write(b"answer")
        assert inner.transport is not None
        inner.transport.close()
        while await client.receive():
            pass
        assert client.tls.read(100) == b"answer"
        client.sock.close()


async def test_a_stream_cut_without_close_notify_is_an_error() -> None:
    inner = Inner()
    async with Server(inner) as server:
        _, writer = await server.client()
        await until(lambda: inner.transport is not None, "no handshake")
        writer.transport.abort()
        assert isinstance(await asyncio.wait_for(inner.lost, 10), ConnectionError)


async def test_damaged_bytes_end_the_connection() -> None:
    inner = Inner()
    async with Server(inner) as server:
        _, writer = await server.client()
        await until(lambda: inner.transport is not None, "no handshake")
        assert inner.transport is not None
        inner.transport.data_received(b"\x17\x03\x03\x00\x20" + bytes(32))
        await asyncio.wait_for(inner.lost, 10)
        assert not inner.got
        writer.close()


async def test_abort_drops_the_connection_at_once() -> None:
    inner = Inner()
    async with Server(inner) as server:
        reader, writer = await server.client()
        await until(lambda: inner.transport is not None, "no handshake")
        assert inner.transport is not None
        inner.transport.abort()
        with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        await asyncio.wait_for(inner.lost, 10)
        writer.close()


async def test_a_client_that_does_not_trust_us_is_told_apart() -> None:
    inner = Inner()
    async with Server(inner) as server:
        client = await Raw.connect(server.port, ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.shake()
        await until(lambda: bool(server.failed), "no failure")
        assert "unknown ca" in server.failed[0]
        assert inner.events == []
        client.sock.close()


async def test_a_handshake_that_stands_still_times_out() -> None:
    inner = Inner()
    async with Server(inner, handshake_s=0.05) as server:
        client = await Raw.connect(server.port)
        await client.hello()
        while await client.receive():
            pass
        assert server.failed == ["the handshake took too long"]
        assert inner.events == []
        client.sock.close()


async def test_a_client_that_leaves_during_the_handshake_is_a_failure_once() -> None:
    inner = Inner()
    async with Server(inner) as server:
        client = await Raw.connect(server.port)
        await client.hello()
        client.sock.close()
        await until(lambda: bool(server.failed), "no failure")
        for _ in range(10):
            await asyncio.sleep(0.002)
        assert server.failed == ["the guest closed during the handshake"]
        assert inner.events == []


async def test_an_inner_protocol_can_be_replaced_in_the_middle() -> None:
    second = Inner()

    def act(self: Inner, _: bytes) -> None:
        assert self.transport is not None
        self.transport.set_protocol(second)

    inner = Inner(act)
    async with Server(inner) as server:
        _, writer = await server.client()
        writer.write(b"one")
        await until(lambda: inner.got == b"one", "first piece")
        writer.write(b"two")
        await until(lambda: second.got == b"two", "second piece")
        assert inner.transport is not None
        assert inner.transport.get_protocol() is second
        writer.close()
        await asyncio.wait_for(second.lost, 10)
