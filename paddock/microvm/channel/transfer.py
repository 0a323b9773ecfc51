"""Ends of transfers and probes: what the guest's EXIT means, how long it is waited for, and a tar on its way out."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, TypeVar

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.frames import Violation
from paddock.microvm.channel.handle import lost
from paddock.microvm.channel.messages import ExitStatus, How
from paddock.microvm.channel.stream import Stream

_T = TypeVar("_T")
_SLACK: Final = 1 << 20
"""Headers and padding of a tar whose contents are within the limit."""

_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a guest has to answer an identity, to end a probe, and to take or give some of a transfer."""

    identify_s: float = 10.0
    probe_s: float = 15.0
    """The guest itself gives a probe up after 10 s, and says so."""
    transfer_s: float = 60.0


def silent(what: str, seconds: float) -> PaddockError:
    """The error when a running guest owes an answer for `seconds`."""
    return PaddockError(
        ErrorKind.SANDBOX_LOST,
        f"the guest does not answer: {what} within {seconds:g} s",
        remedy="stop the sandbox: what it still does cannot be asked any more",
    )


async def within(waiting: Coroutine[None, None, _T], seconds: float, what: str, steps: Callable[[], int]) -> _T:
    """The result of `waiting` while `steps` changes at least once in `seconds`; PaddockError SANDBOX_LOST beyond."""
    task = asyncio.ensure_future(waiting)
    try:
        while True:
            before = steps()
            done, _ = await asyncio.wait((task,), timeout=seconds)
            if done:
                return task.result()
            if steps() == before:
                raise silent(what, seconds)
    finally:
        task.cancel()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The guest's word on a probe: `text` is the address found, or the error's words."""

    ok: bool
    text: str


def probed(status: ExitStatus) -> ProbeResult:
    """What a probe's EXIT says."""
    return ProbeResult(status.how is How.EXITED and status.value == 0, status.message)


def finished(status: ExitStatus, what: str, kind: ErrorKind = ErrorKind.INTERNAL) -> None:
    """Raise PaddockError with the guest's words unless a transfer ended well."""
    if status.how is not How.EXITED or status.value:
        raise PaddockError(kind, f"{what}: {status.message or status.value}")


class FilesOut:
    """A tar that comes out of the guest, taken chunk by chunk; credit is given as chunks are taken."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int, patience_s: float) -> None:
        self._loop = loop
        self._patience_s = patience_s
        self._left = max_bytes + _SLACK
        self._max_bytes = max_bytes
        self._arrived = bytearray()
        self._whole = False
        self._status: ExitStatus | None = None
        self._error: PaddockError | None = None
        self._words = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._stream: Stream | None = None

    def attach(self, stream: Stream) -> None:
        """Belongs to the link, which calls it once."""
        self._stream = stream

    async def next(self) -> bytes | None:
        """The next bytes, at least one; None behind EOF and EXIT. PaddockError when it failed or stands still."""
        while not self._arrived:
            if self._error is not None:
                raise self._error
            if self._status is not None:
                if self._words and not self._status.message:
                    self._status = ExitStatus(
                        self._status.how, self._status.value, self._words.decode(errors="replace")
                    )
                finished(self._status, "files could not be taken out of the guest", ErrorKind.OUTPUT_LIMIT)
                return None
            self._more = self._loop.create_future()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._more
            except TimeoutError:
                raise silent("no file came out", self._patience_s) from None
        chunk = bytes(self._arrived[:_PIECE])
        del self._arrived[:_PIECE]
        self._of().stored(1, len(chunk))
        return chunk

    def forget(self) -> None:
        """The transfer is over here, whether or not it ended."""
        if self._status is not None:
            self._of().forget()
        else:
            self._of().reset("not wanted any more")

    # Sink --------------------------------------------------------------------------------------------------

    def accepted(self, payload: bytes) -> None:
        """The guest began."""

    def data(self, chan: int, payload: memoryview) -> None:
        """Bytes of the tar, or (2) words about what went wrong."""
        if chan != 1:
            self._words += payload[: max(0, 4096 - len(self._words))]
            self._of().stored(chan, len(payload))
            return
        self._left -= len(payload)
        if self._left < 0:
            self._fail(PaddockError(ErrorKind.OUTPUT_LIMIT, f"output is larger than {self._max_bytes} bytes"))
            self._of().stored(chan, len(payload))
            return
        self._arrived += payload
        self._wake()

    def ended(self, chan: int) -> None:
        """EOF of one channel; EXIT follows."""
        self._whole = self._whole or chan == 1

    def exited(self, status: ExitStatus) -> None:
        """The guest is done; raises Violation when it says that all went well and the tar has not ended."""
        if not self._whole and status.how is How.EXITED and not status.value:
            raise Violation("EXIT of a transfer before the EOF of its tar")
        self._status = self._status or status
        self._wake()

    def gone(self, reason: str, violation: bool) -> None:
        """The channel, or the stream, is gone."""
        if self._status is None:
            self._fail(lost(reason or "the guest dropped the stream", violation))

    def drained(self) -> None:
        """Nothing is sent on this stream."""

    def _fail(self, error: PaddockError) -> None:
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _of(self) -> Stream:
        assert self._stream is not None
        return self._stream
