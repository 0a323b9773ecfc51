"""The client: durable before it returns, patient with a recorder that is replaced, exact about what it dropped."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from paddock.audit import AuditUnavailable
from paddock.audit.client import MAX_NOTES, AuditClient
from paddock.audit.verify import verify_sandbox
from paddock.contracts.errors import ErrorKind
from tests.audit.rig import KEYS, Keeper, lines_of

Keep = Callable[..., Keeper]


def events(keeper: Keeper, sandbox: str = "sb-1") -> list[dict[str, object]]:
    keeper.seal(sandbox)
    path = keeper.directory / "sealed" / sandbox
    assert verify_sandbox(path, KEYS).state == "whole"
    return lines_of(path / "chain.ndjson")


async def test_record_returns_once_the_event_is_durable(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt())
    client.policy_digest = "sha256:" + "0" * 64
    await client.record("egress.intent", decision="allow", rule="api", action_id="a1", detail={"host": "x"})
    keeper.kill()
    stored = lines_of(keeper.directory / "spool" / "00000001.ndjson")[-1]
    assert (stored["action_id"], stored["policy_digest"]) == ("a1", "sha256:" + "0" * 64)


async def test_an_event_that_the_recorder_refuses_is_audit_unavailable(keep: Keep) -> None:
    client = AuditClient(keep().adopt())
    with pytest.raises(AuditUnavailable, match="by digest") as caught:
        await client.record("egress.intent", detail={"body": "x" * 70_000})
    assert caught.value.kind is ErrorKind.AUDIT_UNAVAILABLE
    with pytest.raises(AuditUnavailable):
        await client.record("egress.intent", detail={"body": "x" * 200_000})


async def test_what_is_not_json_is_refused_here_and_the_supervisor_is_not_cut_off_for_it(keep: Keep) -> None:
    client = AuditClient(keep().adopt())
    for text in ("\udc80", float("nan")):
        with pytest.raises(AuditUnavailable, match="not JSON"):
            await client.record("egress.intent", detail={"host": text})
        client.note("egress.outcome", detail={"host": text})
    await client.record("egress.intent", detail={"host": "caf\u00e9 \u2028 \x1b"})
    await client.drain()


async def test_a_replaced_recorder_gets_what_was_not_answered_and_has_it_once(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt())
    await client.record("egress.intent", detail={"n": 0})
    os.kill(keeper.pid, signal.SIGSTOP)
    waiting = [asyncio.ensure_future(client.record("egress.intent", detail={"n": n})) for n in range(1, 20)]
    await asyncio.sleep(0)
    client.note("egress.outcome", detail={"n": 20})
    keeper.kill()
    keeper.start()
    client.replace(keeper.adopt())
    await asyncio.gather(*waiting)
    await client.drain()
    numbers = [e["detail"]["n"] for e in events(keeper) if str(e["kind"]).startswith("egress")]  # type: ignore[index]
    assert numbers == list(range(21))


async def test_what_was_recorded_but_not_answered_is_not_recorded_twice(keep: Keep) -> None:
    keeper = keep()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = AuditClient(ours)
    waiting = asyncio.ensure_future(client.record("egress.intent", detail={"n": 1}))
    await asyncio.sleep(0)
    direct = keeper.adopt()
    direct.send(theirs.recv(1 << 17))
    direct.recv(1000)
    theirs.close()
    client.replace(direct)
    await waiting
    assert [e["kind"] for e in events(keeper)] == ["audit.opened", "egress.intent", "audit.sealed"]


async def test_without_a_replacement_every_waiter_is_released_and_later_ones_at_once(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt(), patience_s=0.3)
    keeper.kill()
    results = await asyncio.gather(*(client.record("egress.intent") for _ in range(10)), return_exceptions=True)
    assert all(isinstance(result, AuditUnavailable) for result in results)
    start = asyncio.get_running_loop().time()
    with pytest.raises(AuditUnavailable, match="not replaced"):
        await client.record("egress.intent")
    assert asyncio.get_running_loop().time() - start < 0.1


async def test_a_recorder_that_hangs_is_not_waited_for_without_end(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt(), patience_s=0.3)
    os.kill(keeper.pid, signal.SIGSTOP)
    with pytest.raises(AuditUnavailable, match="does not answer"):
        await client.record("egress.intent")
    os.kill(keeper.pid, signal.SIGCONT)
    await client.record("egress.intent")


async def test_replacements_that_die_as_well_do_not_hold_a_waiter_for_ever(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt(), patience_s=0.3)
    keeper.kill()
    waiting = asyncio.ensure_future(client.record("egress.intent"))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    while not waiting.done() and loop.time() < deadline:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        client.replace(ours)
        await asyncio.sleep(0.05)
    with pytest.raises(AuditUnavailable):
        await asyncio.wait_for(waiting, 0.1)


async def test_dropped_notes_become_one_gap_with_the_exact_count(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt())
    for n in range(MAX_NOTES + 37):
        client.note("egress.outcome", detail={"n": n})
    assert client.dropped == 37
    await client.drain()
    assert client.dropped == 0
    stored = events(keeper)
    assert sum(e["kind"] == "egress.outcome" for e in stored) == MAX_NOTES
    assert [e["detail"] for e in stored if e["kind"] == "audit.gap"] == [{"dropped": 37, "why": "not recorded"}]


async def test_notes_that_a_full_recorder_refuses_are_counted_too(keep: Keep) -> None:
    keeper = keep(max_bytes=1 << 20, segment_bytes=1 << 18, sandbox_bytes=1 << 20)
    client = AuditClient(keeper.adopt())
    fill = [client.record("egress.intent", detail={"x": "y" * 60_000, "n": n}) for n in range(30)]
    with pytest.raises(AuditUnavailable, match="full"):
        await asyncio.gather(*fill)
    for _ in range(5):
        client.note("egress.outcome", detail={"x": "y" * 60_000})
    await client.drain()
    assert [e["detail"]["dropped"] for e in events(keeper) if e["kind"] == "audit.gap"] == [5]  # type: ignore[index]


async def test_many_notes_and_records_at_once_all_arrive_in_order(keep: Keep) -> None:
    keeper = keep()
    client = AuditClient(keeper.adopt())
    waiting = [asyncio.ensure_future(client.record("egress.intent", detail={"n": n})) for n in range(3000)]
    await asyncio.gather(*waiting)
    numbers = [e["detail"]["n"] for e in events(keeper) if e["kind"] == "egress.intent"]  # type: ignore[index]
    assert numbers == list(range(3000))


def test_it_works_under_uvloop(keep: Keep, tmp_path: Path) -> None:
    keeper = keep()
    sock = keeper.adopt()

    async def go() -> None:
        client = AuditClient(sock)
        await asyncio.gather(*(client.record("egress.intent", detail={"n": n}) for n in range(1000)))
        keeper.kill()
        waiting = asyncio.ensure_future(client.record("egress.intent", detail={"n": 1000}))
        await asyncio.sleep(0.01)
        keeper.start()
        client.replace(keeper.adopt())
        await waiting
        client.close()

    uvloop.run(go())
    assert sum(e["kind"] == "egress.intent" for e in events(keeper)) == 1001
