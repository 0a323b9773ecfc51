"""Frames of the channel (docs/channel.md): sans-IO, bounded, every byte taken for hostile."""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

MAGIC: Final = 0x314B434F44444150
MAX_PAYLOAD: Final = 32 * 1024 - 20
WINDOW: Final = 256 * 1024
STALE_LIMIT: Final = 32 << 20
"""Most bytes of an older session that may come before the answer to our SYNC."""

_HEADER: Final = struct.Struct("<IIIBBH")
_SYNC: Final = struct.Struct("<QII")
_U32: Final = struct.Struct("<I")
_OVERHEAD: Final = _HEADER.size + _U32.size
_MAX_FRAME: Final = MAX_PAYLOAD + _OVERHEAD
_BUFFER: Final = 8 * _MAX_FRAME


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    OPEN = 2
    ACCEPT = 3
    DATA = 4
    WINDOW = 5
    EOF = 6
    RESET = 7
    EXIT = 8
    FORGET = 9
    SIGNAL = 10
    PING = 11


class Violation(Exception):
    """The guest broke a rule of the channel; its words end the VM."""


def sync(session: int) -> bytes:
    """The 16 bytes that start `session` (1 … 2^32-1)."""
    return _SYNC.pack(MAGIC, session, session ^ 0xFFFFFFFF)


def filler() -> bytes:
    """Zeros that complete any frame which a dead host cut, so that the guest looks for the next SYNC."""
    return bytes(_MAX_FRAME + _SYNC.size)


def encode(session: int, kind: int, stream: int, payload: bytes | memoryview = b"", chan: int = 0) -> bytes:
    """One whole frame; `payload` is at most MAX_PAYLOAD bytes, ValueError beyond."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    head = _HEADER.pack(len(payload), stream, session, kind, chan, 0)
    return b"".join((head, payload, _U32.pack(session)))


Deliver = Callable[[int, int, int, memoryview], None]
"""Called with kind, chan, stream and payload; the payload is valid only during the call."""


class Decoder:
    """Bytes in, frames of one session out. Give `buffer()` to a read, then say `received(n)`."""

    __slots__ = ("_buffer", "_deliver", "_end", "_session", "_stale", "_start", "_sync", "_view", "synced")

    def __init__(self, session: int, deliver: Deliver) -> None:
        self._session = session
        self._deliver = deliver
        self._sync = sync(session)
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = self._stale = 0
        self.synced = False

    def buffer(self) -> memoryview:
        """Free space for the next read; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and _BUFFER - self._end < _MAX_FRAME:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Take `count` bytes written into `buffer()`; delivers each whole frame, raises Violation."""
        self._end += count
        if not self.synced and not self._find_sync():
            return
        session, view, buffer, end = self._session, self._view, self._buffer, self._end
        position = self._start
        try:
            while end - position >= _OVERHEAD:
                length, stream, of, kind, chan, zero = _HEADER.unpack_from(buffer, position)
                if length > MAX_PAYLOAD:
                    raise Violation(f"a frame of {length} bytes, at most {MAX_PAYLOAD} are allowed")
                if of != session or zero:
                    raise Violation("a frame of another session or with bytes set that must be zero")
                stop = position + _HEADER.size + length
                if end < stop + 4:
                    break
                if _U32.unpack_from(buffer, stop)[0] != session:
                    raise Violation("a frame whose trailer is not its session")
                begin, position = position + _HEADER.size, stop + 4
                self._deliver(kind, chan, stream, view[begin:stop])
        finally:
            self._start = position

    def _find_sync(self) -> bool:
        at = self._buffer.find(self._sync, self._start, self._end)
        if at >= 0:
            self._stale += at - self._start
            self._start = at + len(self._sync)
            self.synced = True
        else:
            keep = max(self._start, self._end - len(self._sync) + 1)
            self._stale += keep - self._start
            self._start = keep
        if self._stale > STALE_LIMIT:
            raise Violation(f"more than {STALE_LIMIT} bytes without an answer to SYNC")
        return self.synced
