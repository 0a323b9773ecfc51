"""The fence over time: slow and silent ends, too many connections, policies that change, splices, the end."""

import asyncio
import ssl
from pathlib import Path

import pytest
import uvloop

from paddock.egress.config import Connection
from paddock.policy.compile import deny_all
from tests.egress.rig import HOST, POLICY, Rig, rig
from tests.servers.shim import fenced, policy, read_answer


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


async def test_63_a_head_that_never_ends_is_cut(tmp_path: Path) -> None:
    now = [1000.0]
    async with rig(tmp_path, monotonic=lambda: now[0]) as r:
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await read_answer(reader)
        await asyncio.sleep(0.05)
        writer.write(b"GET /api/x HTTP/1.1\r\n")
        await asyncio.sleep(0.05)
        now[0] += 31
        answer = await asyncio.wait_for(read_answer(reader), 5)
        assert answer.startswith(b"HTTP/1.1 408")
        assert len(r.server.requests) == 1


async def test_63_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    now = [1000.0]
    async with rig(tmp_path, monotonic=lambda: now[0]) as r:
        r.server.hold.clear()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await until(lambda: r.server.requests)
        now[0] += 601
        answer = await asyncio.wait_for(read_answer(reader), 5)
        assert answer.startswith(b"HTTP/1.1 408")
        assert r.audit.of("egress.outcome")[0].detail["ended"] == "timeout"


async def test_63_a_connection_that_says_nothing_is_cut(tmp_path: Path) -> None:
    now = [1000.0]
    async with rig(tmp_path, monotonic=lambda: now[0]) as r:
        reader, _ = await r.guest.connect("plain.test.example", 80, tls=False)
        now[0] += 16
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert r.audit.of("egress.denied")[0].detail["reason"] == "timeout"


async def test_66_too_many_connections_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddock.egress.gateway.MAX_CONNECTIONS", 4)
    async with rig(tmp_path) as r:
        held = [await r.guest.connect("plain.test.example", 80, tls=False) for _ in range(4)]
        address = await r.guest.look_up("plain.test.example")
        assert address is not None
        await refused(r, address, 80)
        assert r.audit.of("egress.denied")[0].detail["reason"] == "too-many-connections"
        assert len(held) == 4


# A policy that changes.


async def test_80_an_open_request_is_cut_when_the_policy_no_longer_allows_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.server.hold.clear()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await until(lambda: r.server.requests)
        r.gateway.apply(deny_all())
        answer = await asyncio.wait_for(read_answer(reader), 5)
        assert b"200" not in answer
        await until(lambda: r.audit.of("egress.denied"))
        assert r.audit.of("egress.denied")[0].detail["reason"] == "policy-changed"
        assert r.gateway.digest == deny_all().digest


async def test_80_an_open_request_that_is_still_allowed_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.server.hold.clear()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await until(lambda: r.server.requests)
        r.gateway.apply(policy(POLICY.replace("id: database", "id: database-2")))
        r.server.hold.set()
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")


async def test_80_a_policy_that_changes_before_the_send_denies(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.audit.gate = asyncio.Event()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await asyncio.sleep(0.05)
        r.gateway.apply(policy(POLICY.replace("/api/**", "/other/**")))
        r.audit.gate.set()
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 403")
        assert r.server.requests == []


# What is only spliced.


async def test_tls_without_inspection_is_spliced_and_counted(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up("tls.test.example")
        assert address is not None
        context = ssl.create_default_context(cafile=str(r.ca.path))
        context.check_hostname = False
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", await r.guest.listen(address, 443), ssl=context, server_hostname="tls.test.example"
        )
        writer.write(GET)
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        await until(lambda: r.audit.of("egress.outcome"))
        [intent], [outcome] = r.audit.of("egress.intent"), r.audit.of("egress.outcome")
        assert intent.detail["inspected"] is False
        assert int(str(outcome.detail["bytes_out"])) > 200


async def test_19_a_spliced_rule_is_for_its_own_name_only(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up("tls.test.example")
        assert address is not None
        context = ssl.create_default_context(cafile=str(r.ca.path))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(
                "127.0.0.1", await r.guest.listen(address, 443), ssl=context, server_hostname=HOST
            )
        await until(lambda: r.audit.of("egress.denied"))
        assert r.server.connections == 0


async def test_tcp_is_spliced_where_a_rule_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        answer = await r.guest.raw(PLAIN, "db.test.example", 5432, tls=False)
        assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: r.audit.of("egress.outcome"))
        assert r.audit.of("egress.outcome")[0].detail["bytes_out"] == len(PLAIN)


async def test_tcp_to_a_dead_server_is_refused_and_recorded(tmp_path: Path) -> None:
    dead = Connection(name="db.test.example", port=5432, address="127.0.0.1:1")
    async with fenced(policy(POLICY), (dead,)) as f:
        address = await f.guest.look_up("db.test.example")
        assert address is not None
        reader, _ = await asyncio.open_connection("127.0.0.1", await f.guest.listen(address, 5432))
        assert await rest(reader) == b""
        assert [e.kind for e in f.audit.events] == ["egress.intent", "egress.denied"]


async def test_tcp_is_cut_when_the_policy_no_longer_allows_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        reader, writer = await r.guest.connect("db.test.example", 5432, tls=False)
        writer.write(PLAIN)
        await read_answer(reader)
        r.gateway.apply(deny_all())
        assert await rest(reader) == b""


async def test_closing_the_fence_cuts_everything_and_lets_nothing_in(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.server.hold.clear()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await until(lambda: r.server.requests)
        await r.gateway.close()
        assert b"200" not in await read_answer(reader)
        await refused(r, "198.18.0.1", 443)
