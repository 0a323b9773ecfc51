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
from tests.servers.shim import fenced, policy, read_answer
from tests.servers.upstream import Upstream


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
