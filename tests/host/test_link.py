"""The worker's links: a task's output as records with a cursor, and what a dead keeper or supervisor becomes."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.hosts import SandboxRef, TaskDone
from paddock.contracts.report import TaskResult
from paddock.contracts.spec import TaskSpec
from paddock.contracts.streams import MAX_CONTENT, Chunk
from paddock.host import wire
from paddock.host.link import KeeperLink, SupervisorLink, _records
from paddock.host.messages import Ask, KeeperAnswer, KeeperAsk
from paddock.host.paths import HostPaths, listen
from paddock.host.slots import Slots
from paddock.supervisor import rundir
from paddock.supervisor.tasks import RECORD

SB = "sb-0123456789abcdef0123"
REF = SandboxRef(sandbox_id=SB, workflow_id="w", run_id="r", environment="e", host="h")
RECORDS = st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(min_size=1, max_size=80)), max_size=12)


def packed(records: list[tuple[int, bytes]]) -> bytes:
    return b"".join(RECORD.pack(chan, len(data)) + data for chan, data in records)


@given(RECORDS, st.integers(1, 64))
def test_records_come_out_whole_however_the_file_grows(records: list[tuple[int, bytes]], size: int) -> None:
    data, cursor, rest, out = packed(records), 0, b"", []
    for at in range(0, len(data), size):
        chunks, cursor, rest = _records(rest + data[at : at + size], cursor)
        out += chunks
    assert [(chunk.chan, chunk.data) for chunk in out] == records
    assert rest == b""
    assert cursor == len(data)


@given(RECORDS, st.data())
def test_a_reader_that_starts_again_at_its_cursor_misses_and_repeats_nothing(
    records: list[tuple[int, bytes]], draw: st.DataObject
) -> None:
    data = packed(records)
    chunks, _, _ = _records(data, 0)
    seen = draw.draw(st.integers(0, len(chunks)))
    cursor = chunks[seen - 1].cursor if seen else 0
    again, end, _ = _records(data[cursor:], cursor)
    assert chunks[:seen] + again == chunks
    assert end == len(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_whole_records_and_a_rest_or_refused(data: bytes) -> None:
    try:
        chunks, cursor, rest = _records(data, 0)
    except PaddockError as wrong:
        assert wrong.kind is ErrorKind.GUEST_VIOLATION
        return
    assert packed([(chunk.chan, chunk.data) for chunk in chunks]) + rest == data
    assert cursor == len(data) - len(rest)


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    made = HostPaths(tmp_path)
    made.sandbox(SB).mkdir(parents=True)
    (made.output / SB).mkdir(parents=True)
    return made


@pytest.fixture
async def link(paths: HostPaths) -> SupervisorLink:
    slots = Slots(paths.root / "slots.json", 2)
    slots.reserve(SB, "w")
    return SupervisorLink(paths, slots)


async def serve(paths: HostPaths, *replies: bytes | None) -> "tuple[asyncio.Server, list[Ask]]":
    """A supervisor that answers each connection with the next of `replies`, or hangs up."""
    asks: list[Ask] = []
    left = list(replies)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asks.append((await wire.read(reader)).open(Ask))
        if (reply := left.pop(0)) is not None:
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(connection, sock=listen(paths.sandbox(SB) / rundir.CONTROL))
    return server, asks


async def test_a_supervisor_that_is_not_there_is_a_lost_sandbox_in_its_own_last_words(
    link: SupervisorLink, paths: HostPaths
) -> None:
    rundir.write(paths.sandbox(SB) / rundir.FAREWELL, rundir.Farewell(why="the lease ended"))
    with pytest.raises(PaddockError, match="the lease ended") as caught:
        await link.ask(SB, Ask(op="ready"))
    assert caught.value.kind is ErrorKind.SANDBOX_LOST


async def test_a_supervisor_that_dies_before_it_answers_is_a_lost_sandbox(
    link: SupervisorLink, paths: HostPaths
) -> None:
    server, _ = await serve(paths, None)
    with pytest.raises(PaddockError, match="without a word") as caught:
        await link.wait(SB, 1)
    assert caught.value.kind is ErrorKind.SANDBOX_LOST
    server.close()


async def test_what_a_supervisor_refuses_is_raised_as_it_said_it(link: SupervisorLink, paths: HostPaths) -> None:
    info = ErrorInfo(kind=ErrorKind.FENCE_FAILED, message="no policy", field="f", remedy="r")
    server, asks = await serve(paths, wire.failure(info))
    with pytest.raises(PaddockError) as caught:
        await link.run(SB, 1, TaskSpec(argv=("true",)), None)
    assert caught.value.info == info
    assert asks[0].task == 1
    server.close()


async def test_an_archive_ends_where_the_supervisor_says_and_not_where_the_connection_does(
    link: SupervisorLink, paths: HostPaths
) -> None:
    from paddock.contracts.spec import OutputGlob

    whole, cut = wire.content(b"one") + wire.content(b"two") + wire.content(b""), wire.content(b"one")
    server, _ = await serve(paths, whole, cut)
    assert [part async for part in link.get(SB, OutputGlob(glob="**"))] == [b"one", b"two"]
    with pytest.raises(PaddockError) as caught:
        async for _ in link.get(SB, OutputGlob(glob="**")):
            pass
    assert caught.value.kind is ErrorKind.SANDBOX_LOST
    server.close()


async def test_a_late_reader_gets_all_output_and_the_end_when_the_sandbox_is_gone(
    link: SupervisorLink, paths: HostPaths
) -> None:
    paths.task_output(SB, 1).write_bytes(packed([(1, b"out"), (2, b"err")]))
    done = TaskDone(result=TaskResult(exit=0))
    rundir.write(paths.task_done(SB, 1), done)
    heard = [one async for one in link.follow(SB, 1, 0)]
    assert [(one.chan, one.data) for one in heard if isinstance(one, Chunk)] == [(1, b"out"), (2, b"err")]
    assert heard[-1] == done
    assert isinstance(heard[0], Chunk)
    assert len([one async for one in link.follow(SB, 1, heard[0].cursor)]) == 2


async def test_a_reader_of_a_task_that_never_was_hears_so_once_the_sandbox_is_over(
    link: SupervisorLink, paths: HostPaths
) -> None:
    link._slots.release(SB)
    with pytest.raises(PaddockError) as caught:
        async for _ in link.follow(SB, 9, 0):
            pass
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_output_that_stops_with_its_sandbox_is_read_to_its_last_record_and_then_lost(
    link: SupervisorLink, paths: HostPaths
) -> None:
    paths.task_output(SB, 1).write_bytes(packed([(1, b"out")]) + b"\x01\x00\x00\x00\x09cut")
    heard = []
    with pytest.raises(PaddockError) as caught:
        async for one in link.follow(SB, 1, 0):
            heard.append(one)
    assert [one.data for one in heard if isinstance(one, Chunk)] == [b"out"]
    assert caught.value.kind is ErrorKind.SANDBOX_LOST


@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_what_is_no_plain_file_is_never_read_for_a_task(
    kind: str, link: SupervisorLink, paths: HostPaths
) -> None:
    secret = paths.root / "secret"
    secret.write_bytes(packed([(1, b"what only the worker may read")]))
    if kind == "link":
        paths.task_output(SB, 1).symlink_to(secret)
    else:
        os.mkfifo(paths.task_output(SB, 1))
    with pytest.raises((PaddockError, OSError)):
        async for _ in link.follow(SB, 1, 0):
            raise AssertionError("it was read")


async def test_a_record_that_is_too_long_is_a_violation_and_is_not_waited_for(
    link: SupervisorLink, paths: HostPaths
) -> None:
    paths.task_output(SB, 1).write_bytes(RECORD.pack(1, MAX_CONTENT + 1))
    with pytest.raises(PaddockError) as caught:
        async for _ in link.follow(SB, 1, 0):
            pass
    assert caught.value.kind is ErrorKind.GUEST_VIOLATION


async def test_a_supervisor_that_does_not_answer_is_as_good_as_lost(link: SupervisorLink, paths: HostPaths) -> None:
    silent = listen(paths.sandbox(SB) / rundir.CONTROL)
    with pytest.raises(PaddockError, match="did not answer 'ready'") as caught:
        await link.ask(SB, Ask(op="ready"), within_s=0.05)
    assert caught.value.kind is ErrorKind.SANDBOX_LOST
    silent.close()


# the keeper


async def keeper(paths: HostPaths, hang_up_on: str = "") -> asyncio.Server:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                ask = (await wire.read(reader)).open(KeeperAsk)
            except asyncio.IncompleteReadError:
                return
            if ask.op == hang_up_on:
                writer.close()
                return
            info = ErrorInfo(kind=ErrorKind.BOOT_FAILED, message="no") if ask.op == "destroy" else None
            if ask.op == "inventory":
                writer.write(wire.words(KeeperAnswer(id=0, lost=REF, why="the VMM died")))
            writer.write(wire.words(KeeperAnswer(id=ask.id, error=info)))

    return await asyncio.start_unix_server(connection, sock=listen(paths.root / "keeper.sock"))


async def test_the_keepers_news_and_its_answers_are_told_apart(paths: HostPaths) -> None:
    lost: list[tuple[SandboxRef, str]] = []
    server, link = await keeper(paths), KeeperLink(paths, lambda ref, why: lost.append((ref, why)))
    await link.open()
    assert await link.inventory() == ()
    assert lost == [(REF, "the VMM died")]
    with pytest.raises(PaddockError, match="no") as caught:
        await link.ask("destroy", sandbox_id=SB)
    assert caught.value.kind is ErrorKind.BOOT_FAILED
    await link.close()
    server.close()


async def test_who_asked_a_keeper_that_dies_hears_it_and_so_does_who_asks_later(paths: HostPaths) -> None:
    server, link = await keeper(paths, hang_up_on="seal"), KeeperLink(paths, lambda *_: None)
    await link.open()
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(link.ask("seal", sandbox_id=SB), 5)
    await link.close()
    server.close()


async def test_without_a_keeper_there_is_no_link(paths: HostPaths) -> None:
    with pytest.raises(OSError):
        await KeeperLink(paths, lambda *_: None).open()
