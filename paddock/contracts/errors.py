"""Errors: one enum of kinds, and one exception that carries what, where and what to do."""

from enum import StrEnum

from paddock.contracts.base import Wire


class ErrorKind(StrEnum):
    """Every kind of failure that Paddock reports."""

    BAD_SPEC = "bad-spec"
    UNKNOWN_IMAGE = "unknown-image"
    UNKNOWN_POLICY = "unknown-policy"
    BAD_POLICY = "bad-policy"
    NO_SLOT = "no-slot"
    NOT_EXECUTABLE = "not-executable"
    NOT_FOUND = "not-found"
    BOOT_FAILED = "boot-failed"
    FENCE_FAILED = "fence-failed"
    INPUT_MISSING = "input-missing"
    OUTPUT_LIMIT = "output-limit"
    DISK_FULL = "disk-full"
    GUEST_VIOLATION = "guest-violation"
    SECRET_UNAVAILABLE = "secret-unavailable"
    AUDIT_UNAVAILABLE = "audit-unavailable"
    AUDIT_BROKEN = "audit-broken"
    HOST_LOST = "host-lost"
    SANDBOX_LOST = "sandbox-lost"
    LEASE_ENDED = "lease-ended"
    TIMEOUT = "timeout"
    SET_UP = "set-up"
    UNREACHABLE = "unreachable"
    NOT_ALLOWED = "not-allowed"
    INTERNAL = "internal"


class ErrorInfo(Wire):
    """What went wrong, where, and what to do about it."""

    kind: ErrorKind
    message: str
    field: str = ""
    remedy: str = ""


class PaddockError(Exception):
    """Any failure that a person should read: `info` says what, where and what to do."""

    def __init__(self, kind: ErrorKind, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.info = ErrorInfo(kind=kind, message=message, field=field, remedy=remedy)

    @property
    def kind(self) -> ErrorKind:
        return self.info.kind

    def __str__(self) -> str:
        where = f" ({self.info.field})" if self.info.field else ""
        what_next = f"\n  {self.info.remedy}" if self.info.remedy else ""
        return f"{self.info.message}{where}{what_next}"
