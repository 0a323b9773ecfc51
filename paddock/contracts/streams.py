"""Streams between a caller and a host, end to end: who may open one, what is said on it, and how much may be in flight.

One WebSocket through the relay. The host speaks first, with a nonce; the caller answers with a `Proof` and, without
waiting, its first operation; operations follow one after another. Words are JSON text, content is binary messages of at
most `MAX_CONTENT` bytes; whoever receives content says with `ack` how much of it is consumed, counted by `cost`, and
no more than `WINDOW` may be unacknowledged. An error is the host's last word.

Output content is `chan u8 · cursor u64 (big endian) · bytes`; `cursor` is the position behind these bytes, to be
given to `follow` again: its only fixed value is 0, the beginning.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from paddock.contracts.base import Strict, Wire
from paddock.contracts.errors import ErrorInfo
from paddock.contracts.hosts import TaskDone
from paddock.contracts.ids import Digest, EnvironmentName, HostId, SandboxId
from paddock.contracts.spec import PublicKey

WINDOW: Final = 512 << 10
MAX_CONTENT: Final = 64 << 10
MAX_MESSAGE: Final = MAX_CONTENT + 1024
NONCE_BYTES: Final = 32
_CHUNK: Final = struct.Struct(">BQ")
_OVERHEAD: Final = 64


class HostWord(Wire):
    """Anything that a host says; only the fields that matter at that moment are set."""

    nonce: str = ""
    missing: tuple[str, ...] | None = None
    bytes: int | None = None
    ack: int | None = None
    done: bool = False
    end: TaskDone | None = None
    error: ErrorInfo | None = None


class Proof(Strict):
    """Who calls: a key that the sandbox's spec or an `attach` update carried, and the nonce signed with it."""

    sandbox_id: SandboxId
    key: PublicKey
    signature: str = Field(max_length=128, repr=False)


class LateCaller(Strict):
    """Argument of `LateReader`: a key that may open streams of a sandbox that ended on this host, within the hour."""

    sandbox_id: SandboxId
    environment: EnvironmentName
    host: HostId
    caller_key: PublicKey


class Follow(Strict):
    """Output of task number `task` from `cursor` on, live until it ends."""

    op: Literal["follow"] = "follow"
    task: int = Field(ge=1)
    cursor: int = Field(0, ge=0, lt=1 << 63)


class Has(Strict):
    """Which of these objects the host lacks."""

    op: Literal["has"] = "has"
    digests: tuple[Digest, ...] = Field(max_length=128)


class Put(Strict):
    """An object of the caller's, followed by its content; `done` answers at once when the host has it already."""

    op: Literal["put"] = "put"
    digest: Digest
    bytes: int = Field(ge=0, lt=1 << 50)


class Get(Strict):
    """An object that came out of the sandbox."""

    op: Literal["get"] = "get"
    digest: Digest


class Ack(Strict):
    """Everything up to this cost, since the operation began, is consumed."""

    ack: int = Field(ge=0)


Operation = Annotated[Follow | Has | Put | Get, Field(discriminator="op")]
OPERATION: Final[TypeAdapter[Follow | Has | Put | Get]] = TypeAdapter(Operation)


def words_to_sign(sandbox_id: str, host: str, nonce: bytes) -> bytes:
    """What a caller signs; the host is in it, so that no relay can take the proof elsewhere."""
    return b"paddock-stream/1\n" + sandbox_id.encode() + b"\n" + host.encode() + b"\n" + nonce


@dataclass(frozen=True, slots=True)
class Chunk:
    """Output bytes, at most `MAX_CONTENT`: `chan` 1 is stdout, 2 stderr; `cursor` is the position behind them."""

    chan: int
    cursor: int
    data: bytes

    def to_bytes(self) -> bytes:
        return _CHUNK.pack(self.chan, self.cursor) + self.data

    @classmethod
    def from_bytes(cls, message: bytes) -> "Chunk":
        """Raises ValueError for a message too short to be one."""
        if len(message) < _CHUNK.size:
            raise ValueError("output message too short")
        chan, cursor = _CHUNK.unpack_from(message)
        return cls(chan, cursor, message[_CHUNK.size :])


def cost(message: bytes) -> int:
    """What a content message takes from the window: its bytes and something for holding it at all."""
    return len(message) + _OVERHEAD


@dataclass(slots=True)
class Window:
    """The sender's side of an operation's flow control; nothing here waits."""

    spent: int = 0
    acked: int = 0

    def open(self) -> bool:
        """Whether one more message of the largest size may go."""
        return self.spent - self.acked + MAX_MESSAGE + _OVERHEAD <= WINDOW

    def spend(self, message: bytes) -> None:
        self.spent += cost(message)

    def ack(self, total: int) -> None:
        """Raises ValueError for more than was sent; an old word changes nothing."""
        if total > self.spent:
            raise ValueError("acknowledged more than was sent")
        self.acked = max(self.acked, total)


@dataclass(slots=True)
class Intake:
    """The receiver's side: when to say `ack`, so that the sender never stalls and few words are said."""

    taken: int = 0
    said: int = 0

    def take(self, message: bytes) -> int | None:
        """The total to acknowledge now, or None while it is not worth a word."""
        self.taken += cost(message)
        if self.taken - self.said < WINDOW // 4:
            return None
        self.said = self.taken
        return self.taken
