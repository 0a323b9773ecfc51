"""Caller, relay and host together: nobody without the key, nothing lost, nobody held up by another."""

import asyncio
import base64
import contextlib
import hashlib
import io
import os
import time
from contextlib import aclosing

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from paddock.client import stream as client_stream
from paddock.client.errors import ClientError, PolicyDenied, TaskFailed, Unreachable
from paddock.client.keys import CallerKey
from paddock.contracts import streams
from paddock.contracts.hosts import TaskDone
from paddock.contracts.streams import Chunk, HostWord
from paddock.host.objects import ObjectStore
from tests.relay.rig import ENVIRONMENT, HOST, SANDBOX, Rig, eventually, within


async def collect(rig: Rig, cursor: int = 0) -> tuple[bytes, TaskDone]:
    got = bytearray()
    async with asyncio.timeout(20), aclosing(rig.caller().follow(1, cursor)) as output:
        async for part in output:
            if isinstance(part, TaskDone):
                return bytes(got), part
            got += part.data
    raise AssertionError("no end")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def test_output_arrives_while_the_task_runs_and_ends_with_its_result(rig: Rig) -> None:
    output = rig.link.output()
    async with asyncio.timeout(10), aclosing(rig.caller().follow(1)) as parts:
        await output.add(b"one\n")
        first = await anext(parts)
        assert isinstance(first, Chunk)
        assert (first.chan, first.data, first.cursor) == (1, b"one\n", 4)
        began = time.perf_counter()
        await output.add(b"two\n")
        second = await anext(parts)
        assert isinstance(second, Chunk)
        assert second.data == b"two\n"
        assert time.perf_counter() - began < 0.1
        await output.end()
        assert isinstance(await anext(parts), TaskDone)


async def test_a_late_reader_gets_everything_from_its_cursor(rig: Rig) -> None:
    await rig.link.output().add(b"0123456789")
    await rig.link.output().end()
    assert (await collect(rig))[0] == b"0123456789"
    assert (await collect(rig, cursor=7))[0] == b"789"


@pytest.mark.parametrize("case", ["another key", "another sandbox", "unknown sandbox"])
async def test_a_key_opens_its_own_sandbox_only(rig: Rig, case: str) -> None:
    other = "sb-" + "f" * 20
    rig.link.keys[other] = (CallerKey().public,)
    caller = {
        "another key": rig.caller(key=CallerKey()),
        "another sandbox": rig.caller(sandbox_id=other),
        "unknown sandbox": rig.caller(sandbox_id="sb-" + "e" * 20),
    }[case]
    with pytest.raises(PolicyDenied, match="may not open"):
        await caller.missing((digest(b""),))


async def test_a_proof_made_for_another_host_or_nonce_opens_nothing(rig: Rig) -> None:
    for host, change in (("box-2", b""), (HOST, b"x")):
        async with connect(f"{rig.address}/stream/{ENVIRONMENT}/{HOST}", proxy=None) as socket:
            word = HostWord.model_validate_json(await socket.recv())
            nonce = base64.b64decode(word.nonce) + change
            await socket.send(rig.key.prove(SANDBOX, host, nonce).model_dump_json())
            answer = HostWord.model_validate_json(await within(socket.recv()))
            assert answer.error is not None
            assert answer.error.kind == "not-allowed"


async def test_every_caller_gets_a_nonce_of_its_own(rig: Rig) -> None:
    seen = set()
    for _ in range(5):
        async with connect(f"{rig.address}/stream/{ENVIRONMENT}/{HOST}", proxy=None) as socket:
            seen.add(HostWord.model_validate_json(await socket.recv()).nonce)
    assert len(seen) == 5


async def test_an_operation_before_the_proof_is_refused(rig: Rig) -> None:
    async with connect(f"{rig.address}/stream/{ENVIRONMENT}/{HOST}", proxy=None) as socket:
        await socket.recv()
        await socket.send(streams.Follow(task=1).model_dump_json())
        answer = HostWord.model_validate_json(await within(socket.recv()))
        assert answer.error is not None
        assert rig.link.following == 0


async def test_a_stranger_that_floods_is_cut_off(rig: Rig) -> None:
    async with connect(f"{rig.address}/stream/{ENVIRONMENT}/{HOST}", proxy=None) as socket:
        await socket.recv()
        sent = 0
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionClosed):
                for _ in range(10_000):
                    await socket.send(os.urandom(4096))
                    sent += 1
        assert sent < 10_000


@pytest.mark.parametrize("victim", ["host", "relay", "both"])
async def test_a_reader_goes_on_at_its_cursor_after_a_kill(rig: Rig, victim: str) -> None:
    output = rig.link.output()
    output.piece = 1000
    whole = b"".join(b"line %06d\n" % n for n in range(40_000))
    reading = asyncio.create_task(collect(rig))
    for round_ in range(4):
        await output.add(whole[round_ * len(whole) // 5 : (round_ + 1) * len(whole) // 5])
        await eventually(lambda: rig.link.following > 0)
        if victim in ("relay", "both"):
            port = await rig.stop_relay()
        if victim in ("host", "both"):
            await rig.stop_host()
        await output.add(b"")
        if victim in ("relay", "both"):
            await rig.start_relay(port)
        if victim in ("host", "both"):
            await rig.start_host()
    await output.add(whole[4 * len(whole) // 5 :])
    await output.end()
    got, _ = await reading
    assert got == whole


async def test_a_reader_that_pauses_holds_back_its_own_stream_only(rig: Rig) -> None:
    await rig.link.output(1).add(os.urandom(16 << 20))
    await rig.link.output(2).add(b"quick")
    await rig.link.output(2).end()
    async with aclosing(rig.caller().follow(1)) as slow:
        await anext(slow)
        stuck = -1
        while stuck != rig.link.handed_out:
            stuck = rig.link.handed_out
            await asyncio.sleep(0.1)
        assert stuck <= streams.WINDOW + 2 * streams.MAX_CONTENT
        async with asyncio.timeout(5), aclosing(rig.caller().follow(2)) as quick:
            part = await anext(quick)
            assert isinstance(part, Chunk)
            assert part.data == b"quick"


async def test_a_paused_reader_then_gets_every_byte(rig: Rig) -> None:
    data = os.urandom(3 << 20)
    await rig.link.output().add(data)
    await rig.link.output().end()
    got = bytearray()
    async with asyncio.timeout(20), aclosing(rig.caller().follow(1)) as output:
        async for part in output:
            if isinstance(part, Chunk):
                got += part.data
                if len(got) == len(part.data):
                    await asyncio.sleep(0.3)
    assert bytes(got) == data


async def test_the_host_stops_following_when_the_caller_leaves(rig: Rig) -> None:
    await rig.link.output().add(b"x")
    async with aclosing(rig.caller().follow(1)) as output:
        await anext(output)
    await eventually(lambda: rig.link.following == 0)


async def test_silence_after_the_sandbox_ended_gives_up_soon(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "QUIET_S", 0.2)
    await rig.link.output().add(b"x")
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5), aclosing(rig.caller().follow(1, ended=ended)) as output:
        await anext(output)
        ended.set_result(None)
        with pytest.raises(Unreachable):
            await anext(output)


async def test_an_input_arrives_whole_and_wakes_who_waits_for_it(rig: Rig) -> None:
    data = os.urandom(3_000_001)
    waiting = asyncio.create_task(rig.objects.wait(SANDBOX, digest(data), 10))
    steps: list[tuple[int, int]] = []
    assert await rig.caller().missing((digest(data),)) == (digest(data),)
    await rig.caller().put(io.BytesIO(data), digest(data), len(data), lambda done, of: steps.append((done, of)))
    assert (await waiting).read_bytes() == data
    assert steps[-1] == (len(data), len(data))
    assert await rig.caller().missing((digest(data),)) == ()
    await rig.caller().put(io.BytesIO(b"never read"), digest(data), len(data))


async def test_an_empty_input_arrives(rig: Rig) -> None:
    await rig.caller().put(io.BytesIO(b""), digest(b""), 0)
    assert rig.objects.has(SANDBOX, digest(b""))


async def test_bytes_that_are_not_what_their_digest_says_are_refused_and_leave_nothing(rig: Rig) -> None:
    with pytest.raises(ClientError, match="digest"):
        await rig.caller().put(io.BytesIO(b"tampered"), digest(b"original"), 8)
    assert rig.objects.used_bytes == 0
    assert not list(rig.objects.folder(SANDBOX).iterdir())


async def test_a_full_store_refuses_in_words_while_the_caller_still_sends(rig: Rig) -> None:
    data = bytes(65 << 20)
    with pytest.raises(TaskFailed, match="64 MiB"):
        await rig.caller().put(io.BytesIO(data), digest(data), len(data))
    assert rig.objects.used_bytes == 0


async def test_an_output_comes_back_and_is_checked(rig: Rig) -> None:
    data = os.urandom(2_000_000)
    with rig.objects.writer(SANDBOX) as writer:
        writer.write(data)
        name = writer.commit()
    into = io.BytesIO()
    assert await rig.caller().get(name, into) == len(data)
    assert into.getvalue() == data
    rig.objects.path(SANDBOX, name).write_bytes(b"changed on disk")
    with pytest.raises(Unreachable, match="digest"):
        await rig.caller().get(name, io.BytesIO())


async def test_knowing_a_digest_opens_no_object_of_another_sandbox(rig: Rig) -> None:
    other = "sb-" + "c" * 20
    with rig.objects.writer(other) as writer:
        writer.write(b"somebody else's")
        name = writer.commit()
    assert await rig.caller().missing((name,)) == (name,)
    with pytest.raises(TaskFailed, match="no such object"):
        await rig.caller().get(name, io.BytesIO())


async def test_who_acknowledges_more_than_was_sent_loses_the_stream(rig: Rig) -> None:
    await rig.link.output().add(b"x" * 100)
    async with connect(f"{rig.address}/stream/{ENVIRONMENT}/{HOST}", proxy=None) as socket:
        nonce = base64.b64decode(HostWord.model_validate_json(await socket.recv()).nonce)
        await socket.send(rig.key.prove(SANDBOX, HOST, nonce).model_dump_json())
        await socket.send(streams.Follow(task=1).model_dump_json())
        await socket.recv()
        await socket.send(streams.Ack(ack=1 << 40).model_dump_json())
        answer: str | bytes = b""
        async with asyncio.timeout(5):
            while not isinstance(answer, str):
                await rig.link.output().add(b"y")
                answer = await socket.recv()
        error = HostWord.model_validate_json(answer).error
        assert error is not None
        assert "acknowledged" in error.message


async def test_a_host_with_a_wrong_token_is_not_let_in(rig: Rig) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(
            f"{rig.address}/host/{ENVIRONMENT}/box-9", additional_headers={"Authorization": "Bearer no"}, proxy=None
        ):
            pass
    assert refused.value.response.status_code == 401


async def test_a_store_reopened_keeps_objects_and_drops_what_was_cut(rig: Rig) -> None:
    with rig.objects.writer(SANDBOX) as writer:
        writer.write(b"kept")
        name = writer.commit()
    (rig.objects.folder(SANDBOX) / ".part-cut").write_bytes(b"half")
    again = ObjectStore(rig.objects.folder(SANDBOX).parent)
    assert again.has(SANDBOX, name)
    assert again.used_bytes == 4
