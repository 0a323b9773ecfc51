"""A task's output on this program's own, and what Ctrl-C means while it runs."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

from paddock.cli import codes

if TYPE_CHECKING:
    from paddock.client.run import Run
    from paddock.contracts.hosts import TaskDone
    from paddock.contracts.streams import Chunk


def _unseen(_: "Chunk") -> None:
    return None


async def forward(
    run: "Run", first: Callable[[], None] = lambda: None, saw: "Callable[[Chunk], None]" = _unseen
) -> "TaskDone":
    """Bytes as they come, stdout to stdout and stderr to stderr; `first` is called before the first, `saw` after each.

    Raises BrokenPipeError when nobody reads any more.
    """
    begun = False
    async with aclosing(run.chunks()) as chunks:
        async for chunk in chunks:
            if not begun:
                begun = True
                first()
            await write(chunk)
            saw(chunk)
    return await run.wait()


async def write(chunk: "Chunk") -> None:
    """One chunk where it belongs; in a thread, since a slow reader must not stop this program's loop."""
    await asyncio.to_thread(_write, sys.stderr.buffer if chunk.chan == 2 else sys.stdout.buffer, chunk.data)


def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)
    out.flush()


class Interrupts:
    """The first Ctrl-C asks the sandbox to end, the second leaves, the third leaves at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._count = say, 0
        self._main: asyncio.Task[object] | None = None
        self._asked: asyncio.Task[None] | None = None
        self.stop: Callable[[], Awaitable[object]] | None = None

    @property
    def seen(self) -> bool:
        return self._count > 0

    def __enter__(self) -> "Interrupts":
        self._main = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._again)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        if self._asked is not None:
            self._asked.cancel()

    def _again(self) -> None:
        self._count += 1
        if self._count == 1 and self.stop is not None:
            self._say("stopping the sandbox; Ctrl-C again leaves without its receipts")
            self._asked = asyncio.get_running_loop().create_task(self._ask(self.stop))
        elif self._count < 3 and self._main is not None:
            self._main.cancel()
        else:
            os._exit(codes.INTERRUPTED)

    async def _ask(self, stop: Callable[[], Awaitable[object]]) -> None:
        try:
            await stop()
        except Exception:  # whatever it is, the person wants out, and the sandbox has its lease
            if self._main is not None:
                self._main.cancel()
