"""A secret reaches the server that its rule names, exactly once, and nothing that the guest ever receives."""

import asyncio
import base64
import gzip
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop

from paddock.egress.config import Connection
from tests.egress.rig import HOST, POLICY, SECRET, WITH_SECRET, rig
from tests.servers.shim import body_of, fenced, policy
from tests.servers.upstream import Received, Upstream, full


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that a supervisor runs on; the rest of this room's tests use the standard one."""
    policy_: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy_


ECHOES = [
    "raw",
    "twice",
    "bearer",
    "base64-0",
    "base64-1",
    "base64-2",
    "base64-3",
    "base64url",
    "hex",
    "HEX",
    "percent",
    "percent-all",
    "percent-all-lower",
    "json",
    "error-page",
    "headers",
    "header",
    "location",
    "cookie",
    "reason",
    "split",
    "split-writes",
    "trailer",
    "gzip",
    "br",
    "interim",
    "until-close",
    "broken",
]


def disguises(secret: bytes) -> list[bytes]:
    """What must not be seen, in any disguise, computed without the code under test."""
    shifts = [base64.b64encode(b"x" * n + secret)[n + 1 : -4] for n in range(3)]
    urlsafe = [s.replace(b"+", b"-").replace(b"/", b"_") for s in shifts]
    percent = "".join(f"%{b:02x}" for b in secret).encode()
    return [secret, *shifts, *urlsafe, secret.hex().encode(), quote(secret, safe="").encode().lower(), percent]


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer mine\r\n\r\n".encode()


@pytest.mark.parametrize("how", ECHOES)
async def test_57_a_server_that_echoes_the_secret_gives_it_to_nobody(how: str, tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(get(f"/echo/{how}"), HOST)
        assert r.server.requests[0].headers["authorization"] == ["Bearer " + SECRET.decode()]
        assert b"mine" not in r.server.raw
        assert answer.startswith(b"HTTP/1.1 ")
        seen = (answer + body_of(answer)).lower()
        for disguise in disguises(SECRET):
            assert disguise.lower() not in seen, how
        assert SECRET.decode() not in repr(r.audit.events)
        if how not in ("reason", "trailer", "br", "interim", "broken"):
            assert b"[scrubbed]" in answer
            [finding] = r.audit.of("egress.finding")
            assert finding.detail["what"] == "secret-in-answer"


async def test_57_a_field_name_that_holds_the_secret_in_any_case_is_dropped(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET, values={"token": b"Token-For-Tests-123"}) as r:
        answer = await r.guest.raw(get("/echo/header-name"), HOST)
        assert b"token-for-tests-123" not in answer.lower()
        assert b"X-Fine: 1" in answer


async def test_57_a_head_request_that_echoes_in_a_header_is_scrubbed(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(get("/echo/x", "HEAD"), HOST)
        assert b"x-echo: [scrubbed]" in answer.lower()
        assert SECRET not in answer


async def test_57_an_answer_in_an_encoding_that_cannot_be_looked_into_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(get("/echo/br"), HOST)
        assert answer.startswith(b"HTTP/1.1 502")
        assert r.audit.of("egress.outcome")[0].detail["ended"] == "upstream-failed"


async def test_57_a_gzipped_echo_arrives_decoded(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(get("/echo/gzip"), HOST)
        assert body_of(answer) == b"zipped [scrubbed]"
        assert b"content-encoding" not in answer.lower()


async def test_65_a_decompression_bomb_is_cut(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))

    def answer(received: Received) -> list[bytes]:
        return full(bomb, "Content-Encoding: gzip")

    async with rig(tmp_path, WITH_SECRET, answer) as r:
        reader, writer = await r.guest.connect(HOST)
        writer.write(get("/api/bomb"))
        got = len(await reader.read(-1))
        assert got < 32 << 20
        assert r.audit.of("egress.outcome")[0].detail["ended"] == "upstream-failed"


async def test_without_a_secret_the_answer_passes_as_it_is_with_its_length(tmp_path: Path) -> None:
    async with rig(tmp_path, POLICY) as r:
        answer = await r.guest.raw(f"GET /echo/raw HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), HOST)
        assert b"content-length: 6" in answer
        assert answer.endswith(b"<none>")


async def test_a_named_header_carries_the_raw_value_and_replaces_the_guests(tmp_path: Path) -> None:
    text = POLICY + "  secrets:\n    - {ref: token, rule: api, in: header, as: header, name: x-api-key}\n"
    async with rig(tmp_path, text) as r:
        request = f"GET /echo/raw HTTP/1.1\r\nHost: {HOST}\r\nX-Api-Key: a\r\nX-API-KEY: b\r\n\r\n".encode()
        answer = await r.guest.raw(request, HOST)
        assert r.server.requests[0].one("x-api-key") == SECRET.decode()
        assert body_of(answer) == b"<[scrubbed]>"


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\0bcdef", b"abc\x7fdef", b"short", b"", b" padded-value "])
async def test_56_a_value_that_cannot_stand_in_a_header_is_never_sent(value: bytes, tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET, values={"token": value}) as r:
        answer = await r.guest.raw(get("/api/x"), HOST)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"reason": "secret-unavailable"' in answer
        assert r.server.connections == 0
        assert [e.kind for e in r.audit.events] == ["egress.intent", "egress.denied"]


async def test_82_a_missing_secret_denies(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET, values={}) as r:
        answer = await r.guest.raw(get("/api/x"), HOST)
        assert answer.startswith(b"HTTP/1.1 503")
        assert r.server.connections == 0


async def test_87_an_expired_secret_denies(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        r.secrets.expires_at = time.time() - 1
        answer = await r.guest.raw(get("/api/x"), HOST)
        assert answer.startswith(b"HTTP/1.1 503")
        assert r.server.connections == 0


async def test_the_broker_is_told_what_the_secret_is_for(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        await r.guest.raw(get("/api/x?y=1"), HOST)
        assert r.secrets.asked == [("token", "api", HOST, 443, "GET", "/api/x")]
        kinds = [(e.kind, e.strict) for e in r.audit.events]
        assert kinds == [("egress.intent", True), ("secret.used", True), ("egress.outcome", False)]
        assert len({e.action_id for e in r.audit.events}) == 1


async def test_54_a_secret_is_not_sent_in_clear_text(tmp_path: Path) -> None:
    text = POLICY + "  secrets:\n    - {ref: token, rule: plain, in: header, as: bearer}\n"
    async with rig(tmp_path, text) as r:
        answer = await r.guest.raw(
            b"GET / HTTP/1.1\r\nHost: plain.test.example\r\n\r\n", "plain.test.example", 80, tls=False
        )
        assert answer.startswith(b"HTTP/1.1 403")
        assert r.plain.connections == 0
        assert r.secrets.asked == []


async def test_54_unless_the_operator_says_so(tmp_path: Path) -> None:
    text = POLICY + "  secrets:\n    - {ref: token, rule: plain, in: header, as: bearer}\n"
    async with Upstream() as server:
        connection = Connection(name="plain.test.example", port=80, address=server.address, clear_text_secrets=True)
        async with fenced(policy(text), (connection,), {"token": SECRET}) as f:
            request = b"GET /echo/raw HTTP/1.1\r\nHost: plain.test.example\r\n\r\n"
            answer = await f.guest.raw(request, "plain.test.example", 80, tls=False)
            assert body_of(answer) == b"<[scrubbed]>"
            assert server.requests[0].secret == SECRET.decode()


async def test_59_a_rotated_secret_is_used_from_the_next_request_on_and_scrubbed(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        await r.guest.raw(get("/echo/raw"), HOST)
        r.secrets.values["token"] = b"another-value-entirely"
        answer = await r.guest.raw(get("/echo/raw"), HOST)
        assert r.server.requests[1].secret == "another-value-entirely"
        assert body_of(answer) == b"<[scrubbed]>"
