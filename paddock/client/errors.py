"""Typed errors of the SDK: what a caller may want to catch, each still a PaddockError that says what to do."""

from typing import Final

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.report import Outcome, SandboxReport


class ClientError(PaddockError):
    """Anything that went wrong for a caller; `report` is the sandbox's, when it ended with one."""

    def __init__(self, info: ErrorInfo, report: SandboxReport | None = None) -> None:
        super().__init__(info.kind, info.message, field=info.field, remedy=info.remedy)
        self.report = report


class BadSpec(ClientError):
    """The spec names something impossible or unknown: an image, a policy, a size."""


class AlreadyExists(BadSpec):
    """A sandbox of this name runs; `differs` names the fields in which its spec is another one."""

    def __init__(self, info: ErrorInfo, differs: tuple[str, ...] = ()) -> None:
        super().__init__(info)
        self.differs = differs


class Refused(ClientError):
    """Nothing was started: no slot in time, or the policy does not allow it."""


class PolicyDenied(Refused):
    """The policy or the host does not let this caller do that."""


class BootFailed(ClientError):
    """The sandbox did not come up, or its fence did not hold its own tests."""


class TaskFailed(ClientError):
    """The program never ran, or its input or output did not fit."""


class HostLost(ClientError):
    """The machine that held the sandbox is gone."""


class SandboxLost(ClientError):
    """The sandbox's supervisor or virtual machine died."""


class LeaseEnded(ClientError):
    """The sandbox's time was up."""


class AuditFailed(ClientError):
    """No record was possible, so nothing could pass; or the record does not verify."""


class SecretUnavailable(ClientError):
    """The store did not give out a secret that the policy names."""


class Unreachable(ClientError):
    """Temporal, the relay or the host does not answer."""


class NoSuchSandbox(ClientError):
    """No sandbox has this name or workflow id."""


class Ended(NoSuchSandbox):
    """The sandbox has ended, by itself or because somebody stopped it; `report` says how."""


_TYPES: Final[dict[ErrorKind, type[ClientError]]] = {
    ErrorKind.BAD_SPEC: BadSpec,
    ErrorKind.UNKNOWN_IMAGE: BadSpec,
    ErrorKind.UNKNOWN_POLICY: BadSpec,
    ErrorKind.BAD_POLICY: BadSpec,
    ErrorKind.NO_SLOT: Refused,
    ErrorKind.NOT_ALLOWED: PolicyDenied,
    ErrorKind.BOOT_FAILED: BootFailed,
    ErrorKind.FENCE_FAILED: BootFailed,
    ErrorKind.NOT_EXECUTABLE: TaskFailed,
    ErrorKind.NOT_FOUND: TaskFailed,
    ErrorKind.INPUT_MISSING: TaskFailed,
    ErrorKind.OUTPUT_LIMIT: TaskFailed,
    ErrorKind.DISK_FULL: TaskFailed,
    ErrorKind.TIMEOUT: TaskFailed,
    ErrorKind.GUEST_VIOLATION: SandboxLost,
    ErrorKind.SANDBOX_LOST: SandboxLost,
    ErrorKind.HOST_LOST: HostLost,
    ErrorKind.LEASE_ENDED: LeaseEnded,
    ErrorKind.AUDIT_UNAVAILABLE: AuditFailed,
    ErrorKind.AUDIT_BROKEN: AuditFailed,
    ErrorKind.SECRET_UNAVAILABLE: SecretUnavailable,
    ErrorKind.UNREACHABLE: Unreachable,
}
_OUTCOMES: Final = {
    Outcome.HOST_LOST: ErrorKind.HOST_LOST,
    Outcome.SANDBOX_LOST: ErrorKind.SANDBOX_LOST,
    Outcome.LEASE_ENDED: ErrorKind.LEASE_ENDED,
    Outcome.REFUSED: ErrorKind.NOT_ALLOWED,
}
_WORDS: Final = {
    Outcome.HOST_LOST: "the machine that held the sandbox is gone",
    Outcome.SANDBOX_LOST: "the sandbox's supervisor or virtual machine died",
    Outcome.LEASE_ENDED: "the sandbox's time was up",
    Outcome.REFUSED: "the sandbox was refused",
}
_ENDED: Final = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.STOPPED, Outcome.CANCELLED})


def from_info(info: ErrorInfo, report: SandboxReport | None = None) -> ClientError:
    """The typed error for what a host or workflow said."""
    return _TYPES.get(info.kind, ClientError)(info, report)


def from_report(report: SandboxReport) -> ClientError:
    """The typed error for a sandbox that ended before what was asked of it did."""
    if report.error is None and report.outcome in _ENDED:
        return ended(report)
    words = report.reason or _WORDS.get(report.outcome, f"the sandbox ended: {report.outcome}")
    kind = _OUTCOMES.get(report.outcome, ErrorKind.INTERNAL)
    info = report.error or ErrorInfo(kind=kind, message=words, field=report.sandbox_id)
    by_outcome = {Outcome.HOST_LOST: HostLost, Outcome.SANDBOX_LOST: SandboxLost, Outcome.LEASE_ENDED: LeaseEnded}
    found = by_outcome.get(report.outcome)
    return found(info, report) if found is not None else from_info(info, report)


def ended(report: SandboxReport, name: str = "") -> Ended:
    """The error for a question to a sandbox that has ended, however it did."""
    why = f" ({report.reason})" if report.reason else ""
    return Ended(
        ErrorInfo(
            kind=ErrorKind.NOT_FOUND,
            message=f"the sandbox has ended: {report.outcome}{why}",
            field=name or report.sandbox_id,
            remedy="`paddock sandbox show` has its receipts, `sandbox logs` its output for an hour; start another one",
        ),
        report,
    )
