"""TLS over a transport: bytes, back-pressure, ends and failures, with real clients on loopback."""

import asyncio
import ssl

from tests.egress.tls_rig import Inner, Raw, Server, trusting, until


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
