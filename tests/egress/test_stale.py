"""A policy has an end, and a wait may outlast what was true before it: nothing is sent on the strength of either."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paddock.egress.http.client import UpstreamConnection
from paddock.egress.upstream import Key, Upstreams
from paddock.policy.compile import deny_all
from tests.egress.rig import HOST, POLICY, WITH_SECRET, Rig, rig
from tests.servers.shim import policy, read_answer
from tests.servers.upstream import CUT, Received, full

GET = f"GET /api/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


async def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def in_an_hour() -> datetime:
    return datetime.fromtimestamp(time.time() + 3600, UTC)


async def test_a_policy_is_enforced_until_its_end_and_no_longer(tmp_path: Path) -> None:
    wall = Wall()
    async with rig(tmp_path, clock=wall) as r:
        r.gateway.apply(policy(POLICY), in_an_hour())
        assert (await r.guest.raw(GET, HOST)).startswith(b"HTTP/1.1 200")
        address = await r.guest.look_up(HOST)
        assert address is not None
        wall.ahead = 3601
        assert await r.guest.look_up(HOST) is None
        assert r.gateway.digest == deny_all().digest
        reader, _ = await asyncio.open_connection("127.0.0.1", await r.guest.listen(address, 443))
        try:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        except ConnectionError:
            pass
        assert r.audit.of("egress.denied")[-1].detail["reason"] == "stale-policy"
        assert len(r.server.requests) == 1


async def test_a_request_on_an_open_connection_is_denied_beyond_the_end(tmp_path: Path) -> None:
    wall = Wall()
    async with rig(tmp_path, clock=wall) as r:
        r.gateway.apply(policy(POLICY), in_an_hour())
        reader, writer = await r.guest.connect(HOST)
        wall.ahead = 3601
        writer.write(GET)
        answer = await asyncio.wait_for(read_answer(reader), 5)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b'"reason": "stale-policy"' in answer
        assert r.server.requests == []


@pytest.mark.parametrize("port", [443, 5432], ids=["waiting-request", "spliced"])
async def test_open_connections_are_cut_at_the_end_and_it_is_recorded(port: int, tmp_path: Path) -> None:
    wall = Wall()
    async with rig(tmp_path, clock=wall) as r:
        r.gateway.apply(policy(POLICY), in_an_hour())
        server = r.server if port == 443 else r.plain
        server.hold.clear()
        reader, writer = await r.guest.connect(HOST if port == 443 else "db.test.example", port, tls=port == 443)
        writer.write(GET)
        await until(lambda: server.requests)
        wall.ahead = 3601
        try:
            assert b"200 OK" not in await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            pass
        await until(lambda: r.audit.of("egress.denied"))
        assert {e.detail["reason"] for e in r.audit.of("egress.denied")} == {"stale-policy"}


async def test_a_clock_that_is_set_back_revives_nothing_but_a_new_policy_does(tmp_path: Path) -> None:
    wall = Wall()
    async with rig(tmp_path, clock=wall) as r:
        r.gateway.apply(policy(POLICY), in_an_hour())
        wall.ahead = 3601
        assert await r.guest.look_up(HOST) is None
        wall.ahead = 0
        assert await r.guest.look_up(HOST) is None
        r.gateway.apply(policy(POLICY), in_an_hour())
        assert (await r.guest.raw(GET, HOST)).startswith(b"HTTP/1.1 200")


# The dial of a retry takes its time.


async def retry_during(r: Rig, monkeypatch: pytest.MonkeyPatch, event: Callable[[], None]) -> bytes:
    """The answer to a GET whose kept connection dies, with `event` while the second one is dialled."""
    await r.guest.raw(GET, HOST)
    dial = Upstreams.dial

    async def slow(self: Upstreams, key: Key) -> UpstreamConnection:
        connection = await dial(self, key)
        event()
        return connection

    monkeypatch.setattr(Upstreams, "dial", slow)
    return await r.guest.raw(GET, HOST)


def dies_the_second_time() -> tuple[list[Received], Callable[[Received], list[bytes]]]:
    seen: list[Received] = []

    def answer(received: Received) -> list[bytes]:
        seen.append(received)
        return [CUT] if len(seen) == 2 else full(b"ok")

    return seen, answer


@pytest.mark.parametrize("how", ["changed", "stale"])
async def test_a_retry_is_not_sent_when_the_policy_went_while_it_was_dialled(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, answer = dies_the_second_time()
    wall = Wall()
    async with rig(tmp_path, answer=answer, clock=wall) as r:
        r.gateway.apply(policy(POLICY), in_an_hour())

        def event() -> None:
            if how == "stale":
                wall.ahead = 3601
            else:
                r.gateway.apply(policy(POLICY.replace("/api/**", "/other/**")))

        told = await retry_during(r, monkeypatch, event)
        assert told.startswith(b"HTTP/1.1 403")
        assert len(seen) == 2


async def test_a_retry_is_not_sent_when_the_secret_expired_while_it_was_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, answer = dies_the_second_time()
    wall = Wall()
    async with rig(tmp_path, WITH_SECRET, answer, clock=wall) as r:
        r.secrets.expires_at = time.time() + 60
        told = await retry_during(r, monkeypatch, lambda: setattr(wall, "ahead", 61))
        assert told.startswith(b"HTTP/1.1 503")
        assert b'"reason": "secret-unavailable"' in told
        assert len(seen) == 2


async def test_a_first_send_is_not_made_when_the_secret_expired_while_it_was_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall()
    dial = Upstreams.dial

    async def slow(self: Upstreams, key: Key) -> UpstreamConnection:
        connection = await dial(self, key)
        wall.ahead = 61
        return connection

    monkeypatch.setattr(Upstreams, "dial", slow)
    async with rig(tmp_path, WITH_SECRET, clock=wall) as r:
        r.secrets.expires_at = time.time() + 60
        assert (await r.guest.raw(GET, HOST)).startswith(b"HTTP/1.1 503")
        assert r.server.requests == []
