"""The control socket: every request is answered, also by a failure; only a dead supervisor hangs up."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import TaskResult
from paddock.contracts.spec import OutputGlob, TaskSpec
from paddock.host import wire
from paddock.host.messages import Answer, Ask
from paddock.host.paths import dial, listen
from paddock.supervisor.control import Control


class Operations:
    """A sandbox that keeps what it was asked, and fails as it is told to."""

    def __init__(self) -> None:
        self.wrong: Exception | None = None
        self.got: list[Any] = []
        self.output = asyncio.Event()

    async def ready(self) -> Answer:
        if self.wrong:
            raise self.wrong
        return Answer(parts_ms={"hello": 1.0})

    async def attach(self, signed: str) -> Answer:
        return Answer(digest=signed)

    async def run_task(self, ask: Ask, stdin: bytes | None) -> Answer:
        self.got.append(stdin)
        return Answer(started=True)

    async def wait(self, task: int) -> TaskDone:
        return TaskDone(result=TaskResult(exit=task))

    async def grown(self) -> None:
        await self.output.wait()
        self.output.clear()

    def kill(self, task: int) -> Answer:
        return Answer()

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Answer:
        if self.wrong:
            raise self.wrong
        self.got.append((path, b"".join([chunk async for chunk in chunks])))
        return Answer()

    async def get(self, output: OutputGlob) -> AsyncIterator[bytes]:
        yield b"first"
        if self.wrong:
            raise self.wrong
        yield b"last"

    def change(self, ask: Ask) -> Answer:
        return Answer()


@pytest.fixture
async def operations() -> Operations:
    return Operations()


@pytest.fixture
async def there(operations: Operations, tmp_path: Path) -> AsyncIterator[Path]:
    control = Control(operations, frozenset({os.geteuid()}))
    await control.serve(listen(tmp_path / "control.sock"))
    yield tmp_path / "control.sock"
    assert control._server
    control._server.close()


class Caller:
    """One connection to the control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, there: Path) -> "Caller":
        return cls(*await asyncio.open_unix_connection(sock=dial(there)))

    async def ask(self, ask: Ask, *content: bytes) -> wire.Frame:
        self.writer.write(wire.words(ask) + b"".join(map(wire.content, content)))
        return await self.hear()

    async def hear(self) -> wire.Frame:
        return await asyncio.wait_for(wire.read(self.reader), 5)

    async def refused(self, ask: Ask) -> PaddockError:
        with pytest.raises(PaddockError) as caught:
            (await self.ask(ask)).open(Answer)
        return caught.value


async def test_questions_on_one_connection_are_answered_in_their_order(there: Path) -> None:
    caller = await Caller.to(there)
    assert (await caller.ask(Ask(op="ready"))).open(Answer).parts_ms == {"hello": 1.0}
    assert (await caller.ask(Ask(op="wait", task=4))).open(TaskDone).result.exit == 4


async def test_content_arrives_whole_and_its_end_is_told(there: Path, operations: Operations) -> None:
    caller = await Caller.to(there)
    await caller.ask(Ask(op="put", path="/work"), b"one", b"two", b"")
    await caller.ask(Ask(op="run", spec=TaskSpec(argv=("cat",)), stdin_bytes=5), b"words", b"")
    await caller.ask(Ask(op="run", spec=TaskSpec(argv=("cat",)), stdin_bytes=0), b"")
    await caller.ask(Ask(op="run", spec=TaskSpec(argv=("cat",))))
    assert operations.got == [("/work", b"onetwo"), b"words", b"", None]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (PaddockError(ErrorKind.BOOT_FAILED, "words"), ErrorKind.BOOT_FAILED),
        (ValueError("words"), ErrorKind.INTERNAL),
        (TimeoutError("words"), ErrorKind.INTERNAL),
        (OSError(28, "words"), ErrorKind.INTERNAL),
        (AssertionError("words"), ErrorKind.INTERNAL),
    ],
)
async def test_whatever_goes_wrong_is_an_answer_and_the_connection_goes_on(
    wrong: Exception, kind: ErrorKind, there: Path, operations: Operations
) -> None:
    caller = await Caller.to(there)
    operations.wrong = wrong
    refusal = await caller.refused(Ask(op="ready"))
    assert refusal.kind is kind
    assert "words" in refusal.info.message
    operations.wrong = None
    assert (await caller.ask(Ask(op="ready"))).kind == wire.WORDS


async def test_an_archive_that_fails_half_way_says_so_instead_of_ending(there: Path, operations: Operations) -> None:
    caller = await Caller.to(there)
    operations.wrong = PaddockError(ErrorKind.OUTPUT_LIMIT, "too much")
    ask = Ask(op="get", output=OutputGlob(glob="**"))
    assert (await caller.ask(ask)).payload == b"first"
    assert (await caller.hear()).kind == wire.FAILURE
    operations.wrong = None
    assert (await caller.ask(ask)).payload == b"first"
    assert (await caller.hear()).payload == b"last"
    assert (await caller.hear()).payload == b""


async def test_what_is_no_request_is_refused_with_words(there: Path) -> None:
    caller = await Caller.to(there)
    for frame in (wire.content(b"stray"), wire.Frame(wire.WORDS, b'{"op": "no-such"}').pack()):
        caller.writer.write(frame)
        assert (await caller.hear()).kind == wire.FAILURE


async def test_a_watcher_is_woken_each_time_and_others_are_served_meanwhile(
    there: Path, operations: Operations
) -> None:
    watcher, other = await Caller.to(there), await Caller.to(there)
    assert (await watcher.ask(Ask(op="watch"))).open(Answer).grew
    assert (await other.ask(Ask(op="ready"))).kind == wire.WORDS
    for _ in range(3):
        operations.output.set()
        assert (await watcher.hear()).open(Answer).grew
    watcher.writer.close()


async def test_a_caller_who_leaves_in_the_middle_harms_nobody(there: Path) -> None:
    leaving = await Caller.to(there)
    leaving.writer.write(wire.words(Ask(op="put", path="/work")) + wire.content(b"part")[:-2])
    leaving.writer.close()
    other = await Caller.to(there)
    assert (await other.ask(Ask(op="ready"))).kind == wire.WORDS


async def test_only_those_who_may_ask_are_heard(operations: Operations, tmp_path: Path) -> None:
    control = Control(operations, frozenset({os.geteuid() + 1}))
    await control.serve(listen(tmp_path / "control.sock"))
    caller = await Caller.to(tmp_path / "control.sock")
    caller.writer.write(wire.words(Ask(op="run", spec=TaskSpec(argv=("true",)))))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.hear()
    assert operations.got == []
    assert control._server
    control._server.close()
