"""One task as its caller sees it: output while it runs, and how it ended."""

import codecs
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from paddock.client.errors import ClientError, NoSuchSandbox, from_info
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import TaskResult
from paddock.contracts.streams import Chunk

if TYPE_CHECKING:
    from paddock.client.sandbox import Sandbox

STDOUT: Final = 1
STDERR: Final = 2
_LONGEST_LINE: Final = 1 << 20
_SPEAKS_FOR_THE_SANDBOX: Final = frozenset(
    {ErrorKind.UNREACHABLE, ErrorKind.SANDBOX_LOST, ErrorKind.HOST_LOST, ErrorKind.NOT_FOUND}
)


class _Lines:
    """Bytes of one channel into lines; what no decoder takes becomes a replacement character."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""

    def feed(self, data: bytes, final: bool = False) -> Iterator[str]:
        *lines, self._held = (self._held + self._decode(data, final)).split("\n")
        yield from lines
        if len(self._held) > _LONGEST_LINE or (final and self._held):
            yield self._held
            self._held = ""


class Run:
    """Task number `number` of a sandbox."""

    def __init__(self, sandbox: "Sandbox", number: int) -> None:
        self._sandbox = sandbox
        self.number = number
        self.done: TaskDone | None = None
        self._cursor = 0

    async def chunks(self, cursor: int = 0) -> AsyncGenerator[Chunk, None]:
        """Output bytes from `cursor` as they come, both channels in the order of their arrival, until the task ends.

        Every call begins anew. Raises the typed error when the sandbox is lost before the task ends.
        """
        try:
            async with aclosing(self._sandbox.streams.follow(self.number, cursor, self._sandbox.end())) as output:
                async for part in output:
                    if isinstance(part, TaskDone):
                        self.done = part
                        self._sandbox.over(self.number)
                        return
                    self._cursor = part.cursor
                    yield part
        except ClientError as wrong:
            if self._sandbox.late and wrong.kind is ErrorKind.NOT_ALLOWED:
                raise _forgotten(self._sandbox.workflow_id) from wrong
            if wrong.kind not in _SPEAKS_FOR_THE_SANDBOX or not await self._sandbox.ends(wrong.kind):
                raise
            report = await self._sandbox.result()  # raises what the sandbox itself says, with its receipts
            if report.task is None or self.number != 1:
                raise
            self.done = TaskDone(result=report.task, error=report.error)

    async def output(self, chan: int | None = None) -> AsyncGenerator[str, None]:
        """Lines of output as they come, without their ends; both channels, or `STDOUT` or `STDERR` alone."""
        lines = {STDOUT: _Lines(), STDERR: _Lines()}
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                if chunk.chan in lines and chan in (None, chunk.chan):
                    for line in lines[chunk.chan].feed(chunk.data):
                        yield line
        for held in lines.values():
            for line in held.feed(b"", final=True):
                yield line

    async def wait(self) -> TaskDone:
        """How the task ended, also when the program never ran; reads on to the end when nobody did."""
        if self.done is None:
            async with aclosing(self.chunks(self._cursor)) as chunks:
                async for _ in chunks:
                    pass
        assert self.done is not None
        return self.done

    async def result(self) -> TaskResult:
        """How the program ended; raises the typed error when it never ran or Paddock failed it."""
        done = await self.wait()
        if done.error is not None:
            raise from_info(done.error)
        return done.result


def _forgotten(workflow_id: str) -> NoSuchSandbox:
    words = "the sandbox has ended, and its host keeps its output no more: it does for an hour"
    remedy = "`paddock sandbox show` has its receipts"
    return NoSuchSandbox(ErrorInfo(kind=ErrorKind.NOT_FOUND, message=words, field=workflow_id, remedy=remedy))
