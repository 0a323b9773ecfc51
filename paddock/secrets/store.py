"""What every secret store offers: one session a sandbox, reads through it, and an end that can be proved."""

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from paddock.contracts.errors import ErrorKind, PaddockError

MAX_VALUE_BYTES: Final = 64 << 10
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/-]{0,127}")


class SecretUnavailable(PaddockError):
    """No value: missing, not allowed, or the store is out of reach. The words never hold a value."""

    def __init__(self, why: str, remedy: str = "the request was denied; nothing passed without its secret") -> None:
        super().__init__(ErrorKind.SECRET_UNAVAILABLE, why, remedy=remedy)


class Forbidden(SecretUnavailable):
    """The store refused the session's token: expired, revoked, or without a right to this secret."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that may be used until `expires_at` (seconds since 1970); never shown in a repr."""

    value: bytes = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Whether a session is proved to be refused by its store now, and how that was seen."""

    proved: bool
    checked_by: str


class Session(Protocol):
    """One sandbox's access to a store. Methods block: call them on a thread."""

    @property
    def accessor(self) -> str:
        """A name that can end the session but not read with it; "" when the session dies with this process."""

    def read(self, ref: str) -> Secret:
        """The value of `ref`; raises SecretUnavailable, Forbidden when the session itself is refused."""

    def renew_at(self) -> float | None:
        """When `renew` is due (seconds since 1970), None when never."""

    def renew(self) -> None:
        """Prolong the session; raises SecretUnavailable."""

    def end(self) -> Ended:
        """Revoke, then look whether the store still takes it; raises SecretUnavailable when it can't be asked."""


class Store(Protocol):
    """A store of secrets. Methods block: call them on a thread."""

    def open(self, sandbox: str) -> Session:
        """A new session for a sandbox; raises SecretUnavailable."""

    def end_by_accessor(self, accessor: str) -> Ended:
        """As `Session.end`, for a session that another process opened."""


def check_name(name: str) -> str:
    """`name` when it may name a secret; raises PaddockError with what is allowed."""
    if not _NAME.fullmatch(name) or ".." in name or "//" in name or name.endswith("/"):
        raise PaddockError(
            ErrorKind.BAD_SPEC,
            f"{name[:64]!r} is no name of a secret",
            field="name",
            remedy="1 to 128 letters, digits, '.', '_', '/' and '-', beginning with a letter or digit",
        )
    return name


def check_value(value: bytes) -> bytes:
    """`value` when it may go into a header; raises PaddockError, which never holds it."""
    if not value or len(value) > MAX_VALUE_BYTES:
        raise PaddockError(ErrorKind.BAD_SPEC, f"a secret has 1 to {MAX_VALUE_BYTES} bytes; this one has {len(value)}")
    if any(byte < 0x20 or byte == 0x7F for byte in value):
        raise PaddockError(
            ErrorKind.BAD_SPEC,
            "the value holds a line break or another control character, which no header can carry",
            remedy="one trailing line break is removed for you; is this the right file?",
        )
    return value
