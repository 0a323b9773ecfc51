"""The fence as a guest meets it: who it is for is settled first, everything is recorded, nothing goes around it."""

import asyncio
import ssl
from pathlib import Path

import pytest
import uvloop

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.egress.config import Connection
from paddock.policy.compile import deny_all
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


async def test_these_tests_run_on_the_supervisors_loop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


# Identity.


async def test_an_address_that_was_not_handed_out_is_refused_and_recorded(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for address in ("127.0.0.1", "169.254.169.254", "198.18.200.200", "::1", "evil\r\n\x1b[31m"):
            await refused(r, address, 443)
        assert [e.detail["host"] for e in r.audit.of("egress.denied")][:3] == [
            "127.0.0.1",
            "169.254.169.254",
            "198.18.200.200",
        ]
        assert r.audit.events[-1].detail["host"] == "evil???[31m"
        assert all(e.strict and e.decision == "deny" for e in r.audit.events)


async def test_a_port_that_no_rule_speaks_of_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up(HOST)
        assert address is not None
        for port in (22, 25, 80, 8080):
            await refused(r, address, port)
        assert len(r.audit.of("egress.denied")) == 4


@pytest.mark.parametrize("sni", ["evil.example", "plain.test.example", "xapi.test.example", None, "127.0.0.1"])
async def test_12_14_15_another_sni_gets_an_alert_before_any_certificate(sni: str | None, tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up(HOST)
        assert address is not None
        context = r.guest.context()
        context.check_hostname = False
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(
                "127.0.0.1", await r.guest.listen(address, 443), ssl=context, server_hostname=sni or ""
            ) if sni else await no_sni(r, context, address)
        await until(lambda: r.audit.of("egress.denied"))
        assert r.server.connections == 0
        assert "0 contexts" in repr(r.gateway._authority)


async def no_sni(r: Rig, context: ssl.SSLContext, address: str) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    reader, writer = await asyncio.open_connection("127.0.0.1", await r.guest.listen(address, 443))
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    writer.write(outgoing.read())
    incoming.write(await reader.read())
    tls.do_handshake()


async def test_16_a_hello_in_single_bytes_is_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up(HOST)
        assert address is not None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = r.guest.context().wrap_bio(incoming, outgoing, server_hostname=HOST)
        reader, writer = await asyncio.open_connection("127.0.0.1", await r.guest.listen(address, 443))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
                incoming.write(await reader.read(65536))
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


async def test_clear_text_on_the_tls_port_is_refused_with_words(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        answer = await r.guest.raw(GET, HOST, tls=False)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"use https" in answer
        assert r.server.connections == 0
        assert len(r.audit.of("egress.denied")) == 1


async def test_a_guest_that_does_not_trust_the_fence_leaves_a_record(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        address = await r.guest.look_up(HOST)
        assert address is not None
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", await r.guest.listen(address, 443), ssl=ssl.create_default_context(), server_hostname=HOST
            )
        await until(lambda: r.audit.of("egress.denied"))
        assert "handshake" in str(r.audit.of("egress.denied")[0].detail["words"])


async def test_plain_http_passes_where_a_rule_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        answer = await r.guest.raw(PLAIN, "plain.test.example", 80, tls=False)
        assert answer.startswith(b"HTTP/1.1 200")
        assert r.plain.requests[0].one("host") == "plain.test.example"


# DNS.


async def test_75_a_name_that_no_rule_speaks_of_does_not_exist_and_is_noted_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for _ in range(50):
            assert await r.guest.look_up("evil.example") is None
        assert len(r.audit.of("dns.denied")) == 1
        assert r.gateway.denied() == [("", "evil.example", 50)]
        for i in range(2000):
            await r.guest.look_up(f"x{i}.evil.example")
        assert len(r.audit.of("dns.denied")) <= 64
        assert len(r.gateway.denied()) <= 1025


# Order of doing, and failing closed.


async def test_82_when_nothing_can_be_recorded_nothing_happens(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        r.audit.failing = PaddockError(ErrorKind.AUDIT_UNAVAILABLE, "disk full")
        answer = await r.guest.raw(GET, HOST)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"reason": "audit-unavailable"' in answer
        assert r.server.connections == 0
        assert r.secrets.asked == []


async def test_90_the_intent_is_durable_before_the_first_upstream_byte(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        r.audit.gate = asyncio.Event()
        reader, writer = await r.guest.connect(HOST)
        writer.write(GET)
        await asyncio.sleep(0.1)
        assert r.server.connections == 0
        assert r.secrets.asked == []
        r.audit.gate.set()
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")


async def test_before_a_policy_is_applied_everything_is_denied(tmp_path: Path) -> None:
    async with fenced(deny_all()) as f:
        assert await f.guest.look_up(HOST) is None


# Addresses.


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["8.8.8.8", "127.0.0.1"],
        ["64:ff9b::a9fe:a9fe"],
        ["0.0.0.0"],
        [],
    ],
)
async def test_1_3_8_a_name_that_leads_inside_is_denied(addresses: list[str]) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return addresses

    async with fenced(policy(POLICY), resolve=resolve) as f:
        answer = await f.guest.raw(GET, HOST)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b'"reason": "address-refused"' in answer
        for address in addresses:
            assert address.encode() not in answer
        assert [e.kind for e in f.audit.events] == ["egress.intent", "egress.denied"]


async def test_2_a_name_is_resolved_once_and_dialled_where_it_was_checked() -> None:
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["192.0.2.1"] if len(asked) > 1 else ["127.0.0.1"]

    async with fenced(policy(POLICY), resolve=resolve) as f:
        await f.guest.raw(GET, HOST)
        assert asked == [HOST]


async def test_a_name_that_does_not_resolve_says_so() -> None:
    async def resolve(name: str, port: int) -> list[str]:
        raise OSError("no such host")

    async with fenced(policy(POLICY), resolve=resolve) as f:
        assert (await f.guest.raw(GET, HOST)).startswith(b"HTTP/1.1 502")


# The server's certificate.


@pytest.mark.parametrize("fault", ["name", "expired", "unknown-authority", "clear-text"])
async def test_70_a_server_that_cannot_prove_who_it_is_gets_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.egress.upstream.DIAL_S", 1.0)
    ca = TestCa(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    name = "other.test.example" if fault == "name" else HOST
    context = None if fault == "clear-text" else ca.server_context(name, expired=fault == "expired")
    trusted = TestCa(other).path if fault == "unknown-authority" else ca.path
    async with Upstream(context) as server:
        connection = Connection(name=HOST, port=443, address=server.address, ca=trusted)
        async with fenced(policy(WITH_SECRET), (connection,), {"token": SECRET}) as f:
            answer = await f.guest.raw(GET, HOST)
            assert answer.startswith(b"HTTP/1.1 502")
            assert server.requests == []
            assert SECRET not in bytes(server.raw)
            assert f.audit.events[-1].kind == "egress.denied"


# Carrying.


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
