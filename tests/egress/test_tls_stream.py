"""TLS over a transport: bytes, back-pressure, ends and failures, with real clients on loopback."""

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


async def test_a_request_and_its_answer_pass_and_http_1_is_chosen() -> None:
    inner = Inner(lambda self, data: self.write(b"hello " + data))
    async with Server(inner) as server:
        reader, writer = await server.client()
        writer.write(b"world")
        assert await reader.readexactly(11) == b"hello world"
        assert inner.transport is not None
        assert inner.transport.get_extra_info("alpn") == "http/1.1"
        assert inner.transport.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()


async def test_tls_1_2_is_spoken_too() -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with Server(Inner(lambda self, data: self.write(data))) as server:
        reader, writer = await server.client(context)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_megabytes_pass_whole_in_both_directions() -> None:
    size = 8 << 20
    payload = bytes(range(256)) * (size // 256)
    inner = Inner(lambda self, data: self.write(data))
    async with Server(inner) as server:
        reader, writer = await server.client()

        async def send() -> None:
            for at in range(0, size, 100_000):
                writer.write(payload[at : at + 100_000])
                await writer.drain()

        sending = asyncio.create_task(send())
        assert await asyncio.wait_for(reader.readexactly(size), 60) == payload
        await sending
        writer.close()


async def test_what_is_written_while_reading_leaves_as_one_record() -> None:
    def act(self: Inner, _: bytes) -> None:
        for piece in (b"head", bytearray(b"-"), memoryview(b"body")):
            assert self.transport is not None
            self.transport.write(piece)
        self.transport.writelines([b"-", b"end"])

    inner = Inner(act)
    async with Server(inner) as server:
        client = await Raw.connect(server.port)
        await client.shake()
        client.tls.write(b"go")
        await client.send()
        await client.receive()
        assert client.tls.read(100) == b"head-body-end"
        assert client.incoming.pending == 0
        client.sock.close()


async def test_a_client_that_reads_nothing_makes_the_inner_protocol_wait() -> None:
    inner = Inner()
    async with Server(inner) as server:
        reader, writer = await server.client()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: inner.transport is not None, "no handshake")
        written = 0
        while "pause" not in inner.events:
            inner.write(bytes(100_000))
            written += 100_000
            assert written < 64 << 20
            await asyncio.sleep(0)
        assert inner.transport is not None
        assert inner.transport.get_write_buffer_size() > 0
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(reader.readexactly(written), 30)
        await until(lambda: "resume" in inner.events, "never resumed")
        writer.close()


async def test_an_inner_protocol_that_reads_nothing_makes_the_client_wait() -> None:
    def act(self: Inner, _: bytes) -> None:
        assert self.transport is not None
        self.transport.pause_reading()

    inner = Inner(act)
    sent = 32 << 20
    async with Server(inner) as server:
        client = await Raw.connect(server.port)
        await client.shake()

        progress = 0

        async def send() -> None:
            nonlocal progress
            for _ in range(sent >> 14):
                client.tls.write(bytes(1 << 14))
                await client.send()
                progress += 1 << 14

        sending = asyncio.create_task(send())
        await until(lambda: bool(inner.got), "nothing arrived")
        assert inner.transport is not None
        assert not inner.transport.is_reading()
        before = -1
        while before != progress:
            before = progress
            await asyncio.sleep(0.2)
        assert progress < sent
        assert len(inner.got) <= 1 << 14
        inner.act = None
        inner.transport.resume_reading()
        await until(lambda: len(inner.got) == sent, "not all arrived", 60)
        await sending
        client.sock.close()


async def test_pausing_keeps_what_was_already_received() -> None:
    inner = Inner()
    async with Server(inner) as server:
        _, writer = await server.client()
        await until(lambda: inner.transport is not None, "no handshake")
        assert inner.transport is not None
        inner.transport.pause_reading()
        writer.write(b"later")
        writer.close()
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert not inner.got
        inner.transport.resume_reading()
        await until(lambda: inner.got == b"later", "lost while paused")
        assert await asyncio.wait_for(inner.lost, 10) is None
