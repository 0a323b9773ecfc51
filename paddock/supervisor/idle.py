"""An idle sandbox's processors stand still: paused after a while without work, awake again before anything is asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from paddock.microvm.driver import Vm

IDLE_S = 2.0


class Idle:
    """Pauses `vm` when nobody has been inside `awake` for `IDLE_S`; `restored` tells a resumed guest the time."""

    def __init__(self, vm: Vm, restored: Callable[[], Awaitable[object]], idle_s: float = IDLE_S) -> None:
        self._vm, self._restored, self._idle_s = vm, restored, idle_s
        self._inside = 0
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()  # a pause under way is over before a resume begins
        self._pausing: asyncio.Task[None] | None = None
        self._untold = self._closed = False
        self.paused = False

    def begin(self) -> None:
        """The guest is up and nobody uses it yet."""
        self._later()

    @contextlib.asynccontextmanager
    async def awake(self) -> AsyncIterator[None]:
        """The guest runs for as long as the block does."""
        self._inside += 1
        if self._timer:
            self._timer.cancel()
        try:
            async with self._turn:
                if self.paused:
                    await self._vm.resume()
                    self.paused, self._untold = False, True
                if self._untold:  # also when the one before could not tell it
                    await self._restored()
                    self._untold = False
            yield
        finally:
            self._inside -= 1
            self._later()

    def close(self) -> None:
        """Pause nothing any more."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._pausing:
            self._pausing.cancel()

    def _later(self) -> None:
        if not self._inside and not self._closed:
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._pause)

    def _pause(self) -> None:
        self._pausing = asyncio.get_running_loop().create_task(self._do_pause())

    async def _do_pause(self) -> None:
        async with self._turn:
            if not self._inside and not self.paused:
                await self._vm.pause()
                self.paused = True
