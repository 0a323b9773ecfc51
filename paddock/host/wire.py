"""Frames on the host's own sockets: `length u32 · type u8 · payload`; JSON for words, bytes for content."""

import asyncio
import struct
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError

HEADER: Final = struct.Struct(">IB")
WORDS: Final = 0
CONTENT: Final = 1
FAILURE: Final = 2
MAX_FRAME: Final = 4 << 20

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: words (JSON), content (empty: its end), or a failure (an ErrorInfo)."""

    kind: int
    payload: bytes

    def pack(self) -> bytes:
        return HEADER.pack(len(self.payload), self.kind) + self.payload

    def open(self, model: type[Model]) -> Model:
        """The words as `model`; raises the PaddockError that a failure carries."""
        if self.kind == FAILURE:
            info = ErrorInfo.model_validate_json(self.payload)
            raise PaddockError(info.kind, info.message, field=info.field, remedy=info.remedy)
        return model.model_validate_json(self.payload)


def words(model: BaseModel) -> bytes:
    return Frame(WORDS, model.model_dump_json().encode()).pack()


def content(data: bytes) -> bytes:
    return Frame(CONTENT, data).pack()


def failure(info: ErrorInfo) -> bytes:
    return Frame(FAILURE, info.model_dump_json().encode()).pack()


class Splitter:
    """Bytes in, whole frames out; raises PaddockError for a frame that is too long."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise PaddockError(ErrorKind.INTERNAL, f"a frame of {length} bytes on a host socket")
            if len(self._buffer) < HEADER.size + length:
                break
            frames.append(Frame(kind, bytes(self._buffer[HEADER.size : HEADER.size + length])))
            del self._buffer[: HEADER.size + length]
        return frames


async def read(reader: asyncio.StreamReader) -> Frame:
    """The next frame; raises IncompleteReadError when the peer is gone."""
    length, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > MAX_FRAME:
        raise PaddockError(ErrorKind.INTERNAL, f"a frame of {length} bytes on a host socket")
    return Frame(kind, await reader.readexactly(length))
