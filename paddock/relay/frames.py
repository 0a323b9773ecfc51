"""Frames on a host's connection: many callers' streams over one WebSocket.

`kind u8 · stream u32 (big endian) · payload`, one frame a binary message. The relay opens streams; either side closes.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from paddock.contracts.streams import MAX_MESSAGE

_HEAD: Final = struct.Struct(">BI")
MAX_FRAME: Final = _HEAD.size + MAX_MESSAGE
MAX_REASON: Final = 120


class Kind(IntEnum):
    OPEN = 1
    TEXT = 2
    BINARY = 3
    CLOSE = 4


class BadFrame(ValueError):
    """The other end of a host's connection does not speak this protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of one caller's stream, or its beginning or end."""

    kind: Kind
    stream: int
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        return _HEAD.pack(self.kind, self.stream) + self.payload

    @classmethod
    def from_message(cls, message: str | bytes) -> "Frame":
        """Raises BadFrame for text, an unknown kind, or a wrong length."""
        if isinstance(message, str) or not _HEAD.size <= len(message) <= MAX_FRAME:
            raise BadFrame("not a frame")
        kind, stream = _HEAD.unpack_from(message)
        if kind not in _KINDS:
            raise BadFrame(f"unknown frame kind {kind}")
        return cls(Kind(kind), stream, message[_HEAD.size :])


_KINDS: Final = frozenset(Kind)


def message(stream: int, content: str | bytes) -> Frame:
    """The frame that carries one WebSocket message of a stream."""
    if isinstance(content, str):
        return Frame(Kind.TEXT, stream, content.encode())
    return Frame(Kind.BINARY, stream, content)


def closing(stream: int, reason: str) -> Frame:
    """The frame that ends a stream, its reason cut to what a WebSocket's closing can carry."""
    return Frame(Kind.CLOSE, stream, reason.encode()[:MAX_REASON])
