"""A captured connection of the guest as a standard asyncio transport, with `accept` and `refuse` beside it."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from paddock.microvm.channel.messages import ExitStatus
from paddock.microvm.channel.stream import Stream

LINGER_S: Final = 30.0
"""How long a closed connection still swallows what the guest sends, before it is reset."""

_HIGH: Final = 64 * 1024
_PIECE: Final = 64 * 1024
"""Most bytes that a protocol is given at once of what waited for it."""


class GuestTransport(asyncio.Transport):
    """One captured connection. Nothing is delivered, and nothing may be written, before `accept`."""

    def __init__(self, stream: Stream, loop: asyncio.AbstractEventLoop, address: str, port: int) -> None:
        super().__init__({"paddock": (address, port), "peername": (address, port)})
        self._stream = stream
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._arrived = bytearray()
        self._accepted = self._reading = False
        self._closing = self._lost = self._eof_given = self._writing_paused = False
        self._high, self._low = _HIGH, _HIGH // 4
        self._linger: asyncio.TimerHandle | None = None

    # decision ----------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Take the connection: the guest's `connect` succeeds, what it already sent is delivered."""
        if not self._accepted and not self._closing:
            self._accepted = self._reading = True
            self._stream.accept()
            self._loop.call_soon(self._deliver)

    def refuse(self, reason: str) -> None:
        """Do not take the connection, or end it: the guest's program reads a reset."""
        self._end(None, reason)

    # asyncio.Transport -------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """`protocol` is told of everything from now on; its `connection_made` is the caller's to call."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol last set."""
        if self._protocol is None:
            raise RuntimeError("no protocol has been set")
        return self._protocol

    def is_closing(self) -> bool:
        """Whether `close`, `abort` or the guest ended it."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether bytes are delivered as they come."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Deliver nothing more; the guest may send its credit (256 KiB) and then waits."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver what came meanwhile, and give credit again."""
        if self._accepted and not self._reading and not self._closing:
            self._reading = True
            self._loop.call_soon(self._deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue `data` for the guest."""
        if not self._accepted:
            raise RuntimeError("write before accept")
        if not self._closing and data:
            self._stream.send(bytes(data))
            self._check_high()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue all of the parts, as one."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """No more bytes to the guest, once the queue is sent; its bytes still come."""
        self._stream.send_eof()

    def can_write_eof(self) -> bool:
        """Half-close works."""
        return True

    def close(self) -> None:
        """Send what is queued, then EOF; later bytes of the guest are dropped."""
        if self._closing:
            return
        if not self._accepted:
            self.refuse("")
            return
        self._closing = True
        self._drop_arrived()
        self._stream.send_eof()
        self._after_close()

    def abort(self) -> None:
        """Reset, both ways, at once."""
        self._end(None, "")

    def get_write_buffer_size(self) -> int:
        """Bytes queued and not yet in the channel."""
        return self._stream.queued_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high marks, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Marks at which the protocol's `pause_writing` and `resume_writing` are called, in bytes."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"low {low} and high {high} must be 0 <= low <= high")
        self._high, self._low = high, low
        self._check_high()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`paddock`: the original destination as (address, port)."""
        return super().get_extra_info(name, default)

    # Sink --------------------------------------------------------------------------------------------------

    def accepted(self, payload: bytes) -> None:
        """Never called: the guest opened this stream."""

    def exited(self, status: ExitStatus) -> None:
        """Never called: not a program."""

    def data(self, chan: int, payload: memoryview) -> None:
        """Bytes of the guest."""
        if self._closing:
            self._stream.stored(chan, len(payload))
        elif self._reading and not self._arrived:
            data = bytes(payload)
            self._give(data)
            self._stream.stored(chan, len(data))
        else:
            self._arrived += payload

    def ended(self, chan: int) -> None:
        """EOF of the guest."""
        if self._closing:
            self._after_close()
        elif self._reading and not self._arrived:
            self._give_eof()

    def gone(self, reason: str, violation: bool) -> None:
        """RESET by the guest, or the channel closed."""
        self._end(ConnectionResetError(reason or "reset by the guest"), None)

    def drained(self) -> None:
        """The queue became shorter."""
        if self._writing_paused and self._stream.queued_bytes <= self._low:
            self._writing_paused = False
            if self._protocol is not None and not self._lost:
                self._protocol.resume_writing()
        self._after_close()
        self._finish()

    # inside ------------------------------------------------------------------------------------------------

    def _check_high(self) -> None:
        if not self._writing_paused and not self._closing and self._stream.queued_bytes > self._high:
            self._writing_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def _deliver(self) -> None:
        while self._reading and not self._closing and self._arrived:
            data = bytes(self._arrived[:_PIECE])
            del self._arrived[:_PIECE]
            self._give(data)
            self._stream.stored(0, len(data))
        if self._reading and not self._closing and self._stream.ended_chans and not self._arrived:
            self._give_eof()

    def _give(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            view = memoryview(data)
            while view and not self._closing:
                room = memoryview(protocol.get_buffer(len(view))).cast("B")
                count = min(len(room), len(view))
                room[:count] = view[:count]
                protocol.buffer_updated(count)
                view = view[count:]
        elif isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)

    def _give_eof(self) -> None:
        if self._eof_given:
            return
        self._eof_given = True
        protocol, keep = self._protocol, False
        if isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol):
            keep = bool(protocol.eof_received())
        if not keep:
            self.close()
        self._finish()

    def _finish(self) -> None:
        """Both directions have ended: the stream is over without a further word."""
        if self._eof_given and self._stream.eof_sent and not self._closing:
            self._closing = True
            self._after_close()

    def _after_close(self) -> None:
        if not self._closing or not self._stream.eof_sent:
            return
        self._tell_lost(None)
        if self._stream.ended_chans:
            self._cancel_linger()
            self._stream.close()
        elif self._linger is None and not self._stream.closed:
            self._linger = self._loop.call_later(LINGER_S, self._stream.reset)

    def _drop_arrived(self) -> None:
        count = len(self._arrived)
        self._arrived.clear()
        self._stream.stored(0, count)

    def _end(self, error: Exception | None, reason: str | None) -> None:
        self._closing = True
        self._arrived.clear()
        self._cancel_linger()
        if reason is not None:
            self._stream.reset(reason)
        self._tell_lost(error)

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _tell_lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if self._protocol is not None:
                self._loop.call_soon(self._protocol.connection_lost, error)
