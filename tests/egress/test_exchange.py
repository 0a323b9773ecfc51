"""Requests that pass: connections kept, bodies whole, answers checked, limits kept, policies that change."""

import asyncio
import ssl
from pathlib import Path

import pytest
import uvloop

from paddock.egress.config import Connection
from tests.egress.rig import HOST, POLICY, SECRET, WITH_SECRET, Rig, rig
from tests.servers.certs import TestCa
from tests.servers.shim import body_of, fenced, policy, read_answer
from tests.servers.upstream import CUT, Received, Upstream, chunked, full


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that a supervisor runs on; the rest of this room's tests use the standard one."""
    policy_: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy_


GET = f"GET /api/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
PLAIN = b"GET /x HTTP/1.1\r\nHost: plain.test.example\r\n\r\n"


async def until(condition: object, within: float = 5.0) -> None:
    """Wait until `condition()` is true."""
    assert callable(condition)
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the connection closes or is reset."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""


async def refused(r: Rig, address: str, port: int) -> None:
    reader, _ = await asyncio.open_connection("127.0.0.1", await r.guest.listen(address, port))
    assert await rest(reader) == b""
    assert r.guest.captured[-1].refused


async def no_sni(r: Rig, context: ssl.SSLContext, address: str) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    reader, writer = await asyncio.open_connection("127.0.0.1", await r.guest.listen(address, 443))
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    writer.write(outgoing.read())
    incoming.write(await reader.read())
    tls.do_handshake()


async def test_connections_are_kept_on_both_sides(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        reader, writer = await r.guest.connect(HOST)
        for _ in range(5):
            writer.write(GET)
            assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
        await r.guest.raw(GET, HOST)
        assert r.server.connections == 1
        assert len(r.server.requests) == 6


async def test_62_requests_with_other_secrets_never_share_a_connection(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.guest.raw(GET, HOST)
        r.gateway.apply(policy(WITH_SECRET))
        await r.guest.raw(GET, HOST)
        assert r.server.connections == 2


async def test_a_kept_connection_that_died_is_replaced_for_a_get(tmp_path: Path) -> None:
    def answer(received: Received) -> list[bytes]:
        return full(b"ok") if b"first" in received.head or len(seen) != 2 else [CUT]

    seen: list[Received] = []

    def counted(received: Received) -> list[bytes]:
        seen.append(received)
        return answer(received)

    async with rig(tmp_path, answer=counted) as r:
        await r.guest.raw(GET, HOST)
        assert body_of(await r.guest.raw(GET, HOST)) == b"ok"
        assert len(seen) == 3


async def test_a_post_is_never_sent_twice(tmp_path: Path) -> None:
    seen: list[Received] = []

    def answer(received: Received) -> list[bytes]:
        seen.append(received)
        return full(b"ok") if len(seen) == 1 else [CUT]

    async with rig(tmp_path, answer=answer) as r:
        await r.guest.raw(GET, HOST)
        post = f"POST /api/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc".encode()
        assert (await r.guest.raw(post, HOST)).startswith(b"HTTP/1.1 502")
        assert len(seen) == 2


async def test_bodies_of_any_size_pass_both_ways(tmp_path: Path) -> None:
    def answer(received: Received) -> list[bytes]:
        return full(received.body)

    body = bytes(range(256)) * 16384
    async with rig(tmp_path, WITH_SECRET, answer) as r:
        for framing in (f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"):
            reader, writer = await r.guest.connect(HOST)
            writer.write(f"POST /api/x HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n".encode())
            if framing.startswith("T"):
                for at in range(0, len(body), 65536):
                    writer.write(b"10000\r\n" + body[at : at + 65536] + b"\r\n")
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(body)
            assert body_of(await read_answer(reader)) == body
            writer.close()


async def test_100_continue_is_answered_here_once_the_request_is_allowed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        reader, writer = await r.guest.connect(HOST)
        writer.write(
            f"POST /api/x HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert body_of(await read_answer(reader)) == b"plain:abc"
        assert "expect" not in r.server.requests[0].headers


async def test_35_a_denied_request_is_never_told_to_continue(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        answer = await r.guest.raw(
            f"POST /no HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode(), HOST
        )
        assert answer.startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("text", [POLICY, WITH_SECRET], ids=["plain", "scrubbed"])
async def test_67_events_arrive_one_by_one(text: str, tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(Upstream):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._read(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"d\r\ndata: first\n\n\r\n")
            await gate.wait()
            writer.write(b"e\r\ndata: second\n\n\r\n0\r\n\r\n")

    ca = TestCa(tmp_path)
    async with Slow(ca.server_context(HOST)) as server:
        connection = Connection(name=HOST, port=443, address=server.address, ca=ca.path)
        async with fenced(policy(text), (connection,), {"token": SECRET}) as f:
            reader, writer = await f.guest.connect(HOST)
            writer.write(GET)
            async with asyncio.timeout(5):
                await reader.readuntil(b"data: first\n\n")
                gate.set()
                await reader.readuntil(b"data: second\n\n\r\n0\r\n\r\n")


async def test_a_slow_guest_slows_the_server_down(tmp_path: Path) -> None:
    sent = 0

    class Endless(Upstream):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            self.writers.add(writer)
            await self._read(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while sent < 512 << 20:
                    writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                    sent += 65536
                    await writer.drain()
            except OSError:
                pass

    ca = TestCa(tmp_path)
    async with Endless(ca.server_context(HOST)) as server:
        connection = Connection(name=HOST, port=443, address=server.address, ca=ca.path)
        async with fenced(policy(POLICY), (connection,)) as f:
            reader, writer = await f.guest.connect(HOST, limit=1024)
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 64 << 20
            writer.transport.abort()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", CUT],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n"],
    ],
    ids=["cut", "bad-chunk"],
)
async def test_41_an_answer_that_breaks_is_never_shown_as_whole(pieces: list[bytes], tmp_path: Path) -> None:
    async with rig(tmp_path, answer=lambda _: pieces) as r:
        answer = await r.guest.raw(GET, HOST)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 502"))
        assert not answer.endswith(b"0\r\n\r\n")
        assert b"0123" not in answer
        assert r.audit.of("egress.outcome")[0].detail["ended"] == "upstream-failed"


async def test_41_a_planted_second_answer_is_never_given_to_the_next_request(tmp_path: Path) -> None:
    planted = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted"
    seen: list[Received] = []

    def answer(received: Received) -> list[bytes]:
        seen.append(received)
        return [full(b"good")[0] + planted] if len(seen) == 1 else full(b"good")

    async with rig(tmp_path, answer=answer) as r:
        reader, writer = await r.guest.connect(HOST)
        for _ in range(2):
            writer.write(GET)
            assert body_of(await read_answer(reader)) == b"good"
        assert r.server.connections == 2


async def test_41_bytes_that_nobody_asked_for_end_a_kept_connection(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.guest.raw(GET, HOST)
        [kept] = r.server.writers
        kept.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted")
        await until(lambda: not r.server.writers)
        assert b"planted" not in await r.guest.raw(GET, HOST)
        assert r.server.connections == 2


async def test_trailers_of_the_server_are_dropped(tmp_path: Path) -> None:
    async with rig(tmp_path, answer=lambda _: chunked([b"ok"], trailer="X-T: 1\r\n")) as r:
        answer = await r.guest.raw(GET, HOST)
        assert answer.endswith(b"2\r\nok\r\n0\r\n\r\n")


# Time.
