"""What the host started in the guest: a program, a transfer, a probe."""

import asyncio
from collections.abc import Callable
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.messages import ExitStatus
from paddock.microvm.channel.stream import Stream

OnOutput = Callable[[int, memoryview], None]
"""Called with 1 (stdout) or 2 (stderr) and bytes that are valid only during the call."""

NOT_FOUND: Final = 127
"""What `ExitStatus.value` says of a program that is not there."""

_STDIN_HIGH: Final = 256 * 1024


def lost(reason: str, violation: bool) -> PaddockError:
    """The error of everything that was under way when the channel ended."""
    if violation:
        return PaddockError(ErrorKind.GUEST_VIOLATION, f"the guest broke a rule of the channel: {reason}")
    return PaddockError(ErrorKind.SANDBOX_LOST, f"the channel to the guest ended: {reason}")


class ExecHandle:
    """One program in the guest. Credit is given when `on_output` returns, unless the handle is paused."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_output: OnOutput, skip: tuple[int, int] = (0, 0)) -> None:
        self._loop = loop
        self._on_output = on_output
        self._skip = [0, *skip]
        self._owed = [0, 0, 0]
        self._paused = False
        self._stream: Stream | None = None
        self._started: asyncio.Future[int] = loop.create_future()
        self._exit: asyncio.Future[ExitStatus] = loop.create_future()
        self._room: asyncio.Future[None] | None = None

    def attach(self, stream: Stream) -> None:
        """Belongs to the link, which calls it once."""
        self._stream = stream

    @property
    def stream_id(self) -> int:
        """The stream's number: what a later host finds the program by."""
        return self._of().id

    async def started(self) -> int:
        """The program's pid in the guest; PaddockError when it could not be started or the channel ends first."""
        return await asyncio.shield(self._started)

    async def exit(self) -> ExitStatus:
        """How the program ended, after all its output was given to `on_output`; PaddockError when the channel ends."""
        return await asyncio.shield(self._exit)

    def exited_yet(self) -> bool:
        """Whether `exit` answers at once."""
        return self._exit.done()

    def signal(self, number: int) -> None:
        """Send a signal; 9 kills the program and all its children."""
        self._of().signal(number)

    async def write_stdin(self, data: bytes) -> None:
        """Send bytes to the program's standard input; waits while more than 256 KiB are queued."""
        stream = self._of()
        stream.send(bytes(data))
        while stream.queued_bytes > _STDIN_HIGH and not self._exit.done():
            self._room = self._room or self._loop.create_future()
            await asyncio.shield(self._room)

    def stdin_eof(self) -> None:
        """Close the program's standard input."""
        self._of().send_eof()

    def pause(self) -> None:
        """Give no more credit: at most 256 KiB a channel still come, then the program waits."""
        self._paused = True

    def resume(self) -> None:
        """Give the credit that is owed, and again as output comes."""
        self._paused = False
        for chan in (1, 2):
            owed, self._owed[chan] = self._owed[chan], 0
            if owed:
                self._of().stored(chan, owed)

    def forget(self) -> None:
        """Output and exit are stored: the guest may forget the program. A program still running is killed first."""
        stream = self._of()
        if self._exit.done():
            stream.forget()
        else:
            stream.reset("forgotten")
            self.gone("forgotten by the host", False)

    # Sink --------------------------------------------------------------------------------------------------

    def accepted(self, payload: bytes) -> None:
        """The program runs."""
        if not self._started.done():
            self._started.set_result(int.from_bytes(payload[:4], "little"))

    def data(self, chan: int, payload: memoryview) -> None:
        """Output."""
        count = len(payload)
        if self._skip[chan]:
            known = min(self._skip[chan], count)
            self._skip[chan] -= known
            payload = payload[known:]
        if payload and not self._exit.done():
            try:
                self._on_output(chan, payload)
            except Exception as error:
                # The consumer cannot store output (a full disk, say): the program must not run on unheard.
                self._of().signal(9)
                self._fail(error)
        if self._paused:
            self._owed[chan] += count
        else:
            self._of().stored(chan, count)

    def ended(self, chan: int) -> None:
        """EOF of one output."""

    def exited(self, status: ExitStatus) -> None:
        """The program is over."""
        if not self._exit.done():
            self._exit.set_result(status)
        if not self._started.done():
            kind = ErrorKind.NOT_FOUND if status.value == NOT_FOUND else ErrorKind.NOT_EXECUTABLE
            self._started.set_exception(PaddockError(kind, status.message or "the program could not be started"))
            self._started.exception()  # read here: not everyone waits for it
        self.drained()

    def gone(self, reason: str, violation: bool) -> None:
        """The guest or the host dropped the stream."""
        self._fail(lost(reason or "the guest dropped the stream", violation))

    def drained(self) -> None:
        """Input went out."""
        room, stream = self._room, self._of()
        if room is not None and (stream.queued_bytes <= _STDIN_HIGH or self._exit.done()):
            self._room = None
            room.set_result(None)

    def _fail(self, error: Exception) -> None:
        for future in (self._started, self._exit):
            if not future.done():
                future.set_exception(error)
                future.exception()  # read here: not everyone waits for both
        self.drained()

    def _of(self) -> Stream:
        assert self._stream is not None
        return self._stream
