"""How a TLS stream ends: closed, cut, damaged, refused, timed out."""

import asyncio
import socket
import ssl

import pytest

from tests.egress.tls_rig import Inner, Raw, Server, until


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
