"""One stream of the channel on the host's side: credit both ways, and what the guest may say on it."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from paddock.microvm.channel.frames import MAX_PAYLOAD, WINDOW, Kind, Violation
from paddock.microvm.channel.messages import ExitStatus

if TYPE_CHECKING:
    from paddock.microvm.channel.mux import Mux

_CHANS = 3
_GRANT_STEP = WINDOW // 4
"""Credit is given in steps of this size: a WINDOW a frame would double the frames."""


class Sink(Protocol):
    """Who uses a stream; every call happens while bytes of the channel are parsed, so it must be short."""

    def accepted(self, payload: bytes) -> None:
        """The guest took the OPEN."""

    def data(self, chan: int, payload: memoryview) -> None:
        """Bytes arrived, at least one; the view is valid only during the call, and `Stream.stored` is owed for them.

        Only bytes are counted: who keeps them joins them, for an object a frame is worth many times a tiny frame.
        """

    def ended(self, chan: int) -> None:
        """No more bytes on `chan`."""

    def exited(self, status: ExitStatus) -> None:
        """The program, transfer or probe is over."""

    def gone(self, reason: str, violation: bool) -> None:
        """The stream is no more: RESET by the guest, or the channel closed."""

    def drained(self) -> None:
        """Something that was queued has been sent; `Stream.queued_bytes` says what is left."""


class Stream:
    """Offsets and queue of one stream; made by the mux only."""

    __slots__ = (
        "_acked",
        "_eof_sent",
        "_eof_wanted",
        "_granted",
        "_in_chans",
        "_mux",
        "_queue",
        "_sent",
        "_stored",
        "closed",
        "ended_chans",
        "from_guest",
        "got",
        "id",
        "queued_bytes",
        "sink",
    )

    def __init__(self, mux: "Mux", stream_id: int, in_chans: int) -> None:
        self._mux = mux
        self.id = stream_id
        self.from_guest = stream_id % 2 == 0
        self._in_chans = in_chans
        self.sink: Sink | None = None
        self.got = [0] * _CHANS
        self._granted = [0] * _CHANS
        self._stored = [0] * _CHANS
        self.ended_chans = 0
        self._queue: deque[memoryview] = deque()
        self.queued_bytes = 0
        self._sent = self._acked = 0
        self._eof_wanted = self._eof_sent = False
        self.closed = False

    @property
    def unread_bytes(self) -> int:
        """Bytes received and not yet said to be stored."""
        return sum(self.got) - sum(self._stored)

    @property
    def taken_steps(self) -> int:
        """Grows by one for each 64 KiB that the guest says to have stored: a drop now and then is no progress."""
        return self._acked // _GRANT_STEP

    @property
    def eof_sent(self) -> bool:
        """Whether the guest was told that no more bytes come from here."""
        return self._eof_sent

    def start_at(self, chan: int, offset: int) -> None:
        """Bytes of `chan` begin at `offset`: a program taken over from an older session replays from there."""
        self.got[chan] = self._granted[chan] = self._stored[chan] = offset

    # receiving ---------------------------------------------------------------------------------------------

    def receive(self, chan: int, payload: memoryview) -> None:
        """Take DATA; raises Violation when empty, beyond the credit, after EOF, or on a channel that is not there."""
        if not payload:
            # It costs no credit: a guest could send it for ever, and nobody needs it.
            raise Violation("DATA without a byte")
        if chan >= _CHANS or not self._in_chans >> chan & 1:
            raise Violation(f"DATA on channel {chan} of a stream that has no such channel")
        if self.ended_chans >> chan & 1:
            raise Violation("DATA behind EOF")
        got = self.got[chan] + len(payload)
        if got > self._granted[chan] + WINDOW:
            raise Violation(f"more than {WINDOW} bytes in flight on one stream")
        self.got[chan] = got
        self._mux.unread(len(payload))
        if self.sink is not None:
            self.sink.data(chan, payload)

    def stored(self, chan: int, count: int) -> None:
        """The consumer keeps `count` more bytes of `chan`: they will never be needed again from the guest."""
        self._stored[chan] += count
        if self.closed:
            return
        self._mux.unread(-count)
        if self._stored[chan] - self._granted[chan] >= _GRANT_STEP and not self.ended_chans >> chan & 1:
            self._granted[chan] = self._stored[chan]
            self._mux.frame(Kind.WINDOW, self.id, self._stored[chan].to_bytes(8, "little"), chan)

    def receive_eof(self, chan: int) -> None:
        """Take EOF of `chan`."""
        if chan >= _CHANS or not self._in_chans >> chan & 1:
            raise Violation(f"EOF on channel {chan} of a stream that has no such channel")
        self.ended_chans |= 1 << chan
        if self.sink is not None:
            self.sink.ended(chan)

    def receive_window(self, payload: memoryview) -> None:
        """Take the guest's WINDOW: everything below the offset is stored there."""
        if len(payload) != 8:
            raise Violation("a WINDOW that is not one offset")
        offset = int.from_bytes(payload, "little")
        if offset > self._sent:
            raise Violation("a WINDOW beyond what was sent")
        if offset > self._acked:
            self._acked = offset
            self.pump()

    # sending -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue `data` for channel 0; goes out as the guest's credit and the socket allow."""
        if self.closed or self._eof_wanted or not data:
            return
        self._queue.append(memoryview(data))
        self.queued_bytes += len(data)
        self.pump()

    def send_eof(self) -> None:
        """No more bytes on channel 0, once the queue is sent."""
        if not self.closed and not self._eof_wanted:
            self._eof_wanted = True
            self.pump()

    def pump(self, frames: int = 1 << 30) -> None:
        """Send up to `frames` frames of the queue."""
        mux, queue, before = self._mux, self._queue, self.queued_bytes
        if self.closed:
            return
        with mux.corked():
            while queue and frames and mux.writable:
                count = min(self._acked + WINDOW - self._sent, MAX_PAYLOAD, len(queue[0]))
                if count <= 0:
                    break
                head = queue[0]
                mux.frame(Kind.DATA, self.id, head[:count])
                self._sent += count
                self.queued_bytes -= count
                frames -= 1
                if count == len(head):
                    queue.popleft()
                else:
                    queue[0] = head[count:]
            if self._eof_wanted and not queue and not self._eof_sent:
                self._eof_sent = True
                mux.frame(Kind.EOF, self.id)
        if queue and not mux.writable:
            mux.blocked(self)
        if self.sink is not None and (self.queued_bytes < before or (self._eof_sent and not queue)):
            self.sink.drained()

    # ending ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget the stream here, without a word to the guest."""
        if not self.closed:
            self._mux.unread(-self.unread_bytes)
            self.closed = True
            self._queue.clear()
            self.queued_bytes = 0
            self._mux.drop(self)

    def reset(self, reason: str = "") -> None:
        """The stream is gone, both ways; the guest reads `reason`."""
        if not self.closed:
            self._mux.frame(Kind.RESET, self.id, reason.encode()[:512])
            self.close()

    def forget(self) -> None:
        """Output and exit are stored: the guest may forget the program."""
        if not self.closed:
            self._mux.frame(Kind.FORGET, self.id)
            self.close()

    def accept(self, payload: bytes = b"") -> None:
        """Answer the guest's OPEN."""
        if not self.closed:
            self._mux.frame(Kind.ACCEPT, self.id, payload)

    def signal(self, number: int) -> None:
        """Send signal `number`; 9 kills the program's whole cgroup."""
        if not self.closed:
            self._mux.frame(Kind.SIGNAL, self.id, bytes([number]))
