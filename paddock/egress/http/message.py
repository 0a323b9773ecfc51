"""What an HTTP message is once it has been parsed and checked, and how one is refused."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

Header = tuple[bytes, bytes]

MAX_HEAD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 128
MAX_TARGET_BYTES: Final = 8 << 10
MAX_INTERIM: Final = 8  # 1xx answers swallowed before one final answer


class Why(StrEnum):
    """Closed set of reasons that a guest may be told, one word each."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    IDENTITY = "identity-mismatch"
    POLICY = "not-allowed"
    SECRET = "secret-unavailable"
    AUDIT = "audit-unavailable"
    ADDRESS = "address-refused"
    UPSTREAM = "upstream-failed"
    BUSY = "too-many-connections"
    TIMEOUT = "timeout"
    NARROWED = "policy-changed"
    STALE = "stale-policy"


class Refused(Exception):
    """A message that goes no further: HTTP status, reason class, and words that are safe to show to the guest."""

    def __init__(self, status: int, why: Why, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.why = why
        self.words = words


class UpstreamBroken(Exception):
    """The server's bytes are not one well-formed answer to the request that was sent."""


class Framing(Enum):
    """How the end of a body is known."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3  # answers only: the server closes


class End(Enum):
    """The end of a message, in a stream of events."""

    END = 0


END: Final = End.END


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request: `headers` have lower-case names and hold neither framing, nor hop-by-hop fields, nor Host."""

    method: str
    path: str
    query: bytes | None
    host: str
    port: int | None
    headers: tuple[Header, ...]
    framing: Framing
    length: int
    expects_continue: bool
    keep_alive: bool

    @property
    def target(self) -> bytes:
        """Origin-form of the request's target, as it is sent on."""
        path = self.path.encode("ascii")
        return path if self.query is None else path + b"?" + self.query

    @property
    def idempotent(self) -> bool:
        """True when it may be sent again on a fresh connection: no body and a method without effect when repeated."""
        return self.framing is Framing.NONE and self.method in ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Response:
    """A checked final answer: `headers` hold neither framing nor hop-by-hop fields; the reason phrase is dropped."""

    status: int
    headers: tuple[Header, ...]
    framing: Framing
    length: int
    keep_alive: bool
    encoding: bytes
