"""The host worker's way to the keeper and, by run directory, to each supervisor."""

import asyncio
import contextlib
import itertools
import logging
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Boot, SandboxRef, TaskDone
from paddock.contracts.spec import OutputGlob, Shape, TaskSpec
from paddock.contracts.streams import MAX_CONTENT, Chunk
from paddock.host import wire
from paddock.host.messages import Answer, Ask, Held, KeeperAnswer, KeeperAsk
from paddock.host.paths import HostPaths, dial
from paddock.host.slots import Slots
from paddock.supervisor import rundir
from paddock.supervisor.tasks import RECORD

log = logging.getLogger(__name__)
OnLost = Callable[[SandboxRef, str], None]
ANSWER_S: Final = 45.0
POLL_S: Final = 0.02
READ: Final = MAX_CONTENT
MAX_DONE: Final = 1 << 16


class KeeperLink:
    """Requests to the keeper over one connection, dialled again when the keeper is a new one."""

    def __init__(self, paths: HostPaths, on_lost: OnLost) -> None:
        self._paths, self._on_lost = paths, on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[KeeperAnswer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._run: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and subscribe to what the keeper notices; raises OSError when no keeper is there."""
        reader, self._writer = await asyncio.open_unix_connection(sock=dial(self._paths.root / "keeper.sock"))
        self._run = asyncio.get_running_loop().create_task(self._read(reader))
        await self.ask("subscribe")

    async def close(self) -> None:
        if self._run:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)

    async def ask(
        self,
        op: str,
        *,
        boot: Boot | None = None,
        sandbox_id: str | None = None,
        lease_end: datetime | None = None,
        image: str = "base",
        shape: Shape | None = None,
    ) -> KeeperAnswer:
        """One request; raises the PaddockError that the keeper answers, or ConnectionError when it dies."""
        if self._writer is None:
            raise ConnectionResetError("the keeper is gone")
        ask = KeeperAsk.model_validate(
            {
                "id": next(self._numbers),
                "op": op,
                "boot": boot,
                "sandbox_id": sandbox_id,
                "lease_end": lease_end,
                "image": image,
                "shape": shape or Shape(),
            }
        )
        future: asyncio.Future[KeeperAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[ask.id] = future
        self._writer.write(wire.words(ask))
        answer = await future
        if answer.error:
            info = answer.error
            raise PaddockError(info.kind, info.message, field=info.field, remedy=info.remedy)
        return answer

    async def inventory(self) -> tuple[Held, ...]:
        return (await self.ask("inventory")).held

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                answer = (await wire.read(reader)).open(KeeperAnswer)
                if answer.lost:
                    self._on_lost(answer.lost, answer.why)
                elif (future := self._waiting.pop(answer.id, None)) and not future.done():
                    future.set_result(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self._writer:
                self._writer.close()
            self._writer = None
            waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                if not future.done():
                    future.set_exception(ConnectionResetError("the keeper died before it answered"))


def _lost(sandbox_id: str, why: str) -> PaddockError:
    return PaddockError(ErrorKind.SANDBOX_LOST, f"{sandbox_id}: {why}")


class SupervisorLink:
    """Requests to the supervisors of this host; every failure to reach one means that its sandbox is lost."""

    def __init__(self, paths: HostPaths, slots: Slots) -> None:
        self._paths, self._slots = paths, slots

    @contextlib.asynccontextmanager
    async def _connection(self, sandbox_id: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        directory = self._paths.sandbox(sandbox_id)
        try:
            reader, writer = await asyncio.open_unix_connection(
                sock=dial(directory / rundir.CONTROL), limit=2 * wire.MAX_FRAME
            )
        except OSError as wrong:
            raise _lost(sandbox_id, rundir.why(directory)) from wrong
        try:
            yield reader, writer
        except (asyncio.IncompleteReadError, ConnectionError) as wrong:
            raise _lost(sandbox_id, rundir.why(directory)) from wrong
        finally:
            writer.close()

    async def ask(self, sandbox_id: str, ask: Ask, within_s: float = ANSWER_S) -> Answer:
        """One request, one answer; raises the PaddockError that the supervisor answers, or SANDBOX_LOST.

        A supervisor that does not answer within `within_s` is as good as lost: it hangs, or somebody has it.
        """
        try:
            async with asyncio.timeout(within_s), self._connection(sandbox_id) as (reader, writer):
                writer.write(wire.words(ask))
                return (await wire.read(reader)).open(Answer)
        except TimeoutError:
            raise _lost(sandbox_id, f"the supervisor did not answer {ask.op!r} within {within_s:g} s") from None

    async def run(self, sandbox_id: str, task: int, spec: TaskSpec, stdin: bytes | None) -> None:
        """Start a task, or find it running or over."""
        async with self._connection(sandbox_id) as (reader, writer):
            writer.write(
                wire.words(Ask(op="run", task=task, spec=spec, stdin_bytes=None if stdin is None else len(stdin)))
            )
            if stdin is not None:
                for at in range(0, len(stdin), wire.MAX_FRAME // 2):
                    writer.write(wire.content(stdin[at : at + wire.MAX_FRAME // 2]))
                writer.write(wire.content(b""))
            (await wire.read(reader)).open(Answer)

    async def wait(self, sandbox_id: str, task: int) -> TaskDone:
        """How the task ended, once it has."""
        async with self._connection(sandbox_id) as (reader, writer):
            writer.write(wire.words(Ask(op="wait", task=task)))
            return (await wire.read(reader)).open(TaskDone)

    async def put(self, sandbox_id: str, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Unpack a tar at `path` in the guest."""
        async with self._connection(sandbox_id) as (reader, writer):
            writer.write(wire.words(Ask(op="put", path=path)))
            async for chunk in chunks:
                writer.write(wire.content(chunk))
                await writer.drain()
            writer.write(wire.content(b""))
            (await wire.read(reader)).open(Answer)

    async def get(self, sandbox_id: str, output: OutputGlob) -> AsyncIterator[bytes]:
        """A tar of what matches; raises the supervisor's error when it is too large."""
        async with self._connection(sandbox_id) as (reader, writer):
            writer.write(wire.words(Ask(op="get", output=output)))
            while True:
                frame = await wire.read(reader)
                if frame.kind == wire.FAILURE:
                    frame.open(Answer)
                if not frame.payload:
                    return
                yield frame.payload

    # what streams need (paddock.host.streams.SandboxLink)

    def caller_keys(self, sandbox_id: str) -> tuple[str, ...]:
        return self._slots.caller_keys(sandbox_id)

    async def follow(self, sandbox_id: str, task: int, cursor: int) -> AsyncGenerator[Chunk | TaskDone, None]:
        """Output of a task from `cursor`, live, then its end; the file outlives the sandbox for a late reader."""
        file = self._paths.task_output(sandbox_id, task)
        grew = _Growth(self._paths, sandbox_id)
        try:
            await self._appear(sandbox_id, file, grew)
            with _open_output(file) as output:
                output.seek(cursor)
                rest = b""
                while True:
                    done = self._done(sandbox_id, task)  # looked at before the read: what it ends is then all read
                    rest += output.read(READ)
                    chunks, cursor, rest = _records(rest, cursor)
                    for chunk in chunks:
                        yield chunk
                    if chunks:
                        continue
                    if done:
                        yield done
                        return
                    if not await grew.wait() and not self._done(sandbox_id, task):
                        raise _lost(sandbox_id, "the sandbox ended before the task did")
        finally:
            grew.close()

    async def _appear(self, sandbox_id: str, file: "os.PathLike[str]", grew: "_Growth") -> None:
        while not os.path.exists(file):
            slot = self._slots.get(sandbox_id)
            if slot is None:
                raise PaddockError(ErrorKind.NOT_FOUND, f"{sandbox_id} ended and had no such task")
            await grew.wait()

    def _done(self, sandbox_id: str, task: int) -> TaskDone | None:
        try:
            with _open_output(self._paths.task_done(sandbox_id, task)) as file:
                return TaskDone.model_validate_json(file.read(MAX_DONE))
        except FileNotFoundError:
            return None


def _open_output(file: Path) -> FileIO:
    """A file that a supervisor wrote: a plain one, or nothing. Whoever broke one could leave a link or a pipe there."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PaddockError(ErrorKind.GUEST_VIOLATION, f"{file.name} is no plain file")
    return FileIO(fd, "rb")


def _records(data: bytes, cursor: int) -> tuple[list[Chunk], int, bytes]:
    """Whole records out of `data`, the cursor behind them, and what is left over."""
    chunks, at = [], 0
    while len(data) - at >= RECORD.size:
        chan, length = RECORD.unpack_from(data, at)
        if length > MAX_CONTENT:
            raise PaddockError(ErrorKind.GUEST_VIOLATION, "a record of output that no supervisor writes")
        end = at + RECORD.size + length
        if end > len(data):
            break
        chunks.append(Chunk(chan, cursor + end, data[at + RECORD.size : end]))
        at = end
    return chunks, cursor + at, data[at:]


class _Growth:
    """Wakes a follower: by the supervisor while it lives, by a short sleep while there is none yet."""

    def __init__(self, paths: HostPaths, sandbox_id: str) -> None:
        self._directory = paths.sandbox(sandbox_id)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def wait(self) -> bool:
        """Wait for a wake-up; False after a short sleep when no supervisor is there."""
        if self._reader is None:
            try:
                sock = dial(self._directory / rundir.CONTROL)
            except OSError:
                await asyncio.sleep(POLL_S)
                return False
            self._reader, self._writer = await asyncio.open_unix_connection(sock=sock)
            self._writer.write(wire.words(Ask(op="watch")))
        try:
            await wire.read(self._reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None
