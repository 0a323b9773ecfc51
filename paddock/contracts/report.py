"""`SandboxReport`: what a sandbox's workflow answers when all of it is gone."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorInfo


class Outcome(StrEnum):
    """How a sandbox ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    LEASE_ENDED = "lease-ended"
    HOST_LOST = "host-lost"
    SANDBOX_LOST = "sandbox-lost"
    REFUSED = "refused"
    ERROR = "error"


FAILS_THE_WORKFLOW = frozenset({Outcome.HOST_LOST, Outcome.SANDBOX_LOST, Outcome.REFUSED, Outcome.ERROR})


class Gone(StrEnum):
    """How sure we are that a resource is gone."""

    PROVED = "proved"
    IMPLIED_BY_HOST = "implied_by_host"
    UNPROVED = "unproved"


class Receipt(Wire):
    """Proof that one resource is gone, with how it was checked."""

    resource: str
    id: str
    gone: Gone
    checked_by: str
    at: datetime


class TaskResult(Wire):
    """How a task ended; `output_digest` is the SHA-256 over its output bytes in the order they arrived."""

    exit: int | None = None
    signal: int | None = None
    reason: str = ""
    output_digest: str = ""
    output_bytes: int = 0


class AuditSummary(Wire):
    """The sealed chain of a sandbox: how many events, the last line's hash, and whether it verified."""

    events: int = 0
    head: str = ""
    verified: bool = False


class OutputFile(Wire):
    """One file that came out, kept on the host by digest."""

    path: str
    digest: str
    bytes: int


class Denial(Wire):
    """How often the fence refused one host."""

    rule: str = ""
    host: str
    count: int


class SandboxReport(Wire):
    """What happened and what is gone."""

    sandbox_id: str
    outcome: Outcome
    reason: str = ""
    task: TaskResult | None = None
    steps_ms: dict[str, float] = Field(default_factory=dict)
    receipts: tuple[Receipt, ...] = ()
    audit: AuditSummary = AuditSummary()
    policy_digest: str = ""
    host: str = ""
    outputs: tuple[OutputFile, ...] = ()
    denied: tuple[Denial, ...] = ()
    error: ErrorInfo | None = None
