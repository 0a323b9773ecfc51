"""What a sandbox's end is called, and the notes its report is made of."""

from dataclasses import dataclass, field
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import hosts
    from paddock.contracts.errors import ErrorInfo, ErrorKind
    from paddock.contracts.report import (
        AuditSummary,
        Denial,
        Gone,
        Outcome,
        OutputFile,
        Receipt,
        SandboxReport,
        TaskResult,
    )
    from paddock.contracts.spec import SandboxSpec

from workflows.saga import Step

REFUSALS = frozenset(
    {
        ErrorKind.BAD_SPEC,
        ErrorKind.UNKNOWN_IMAGE,
        ErrorKind.UNKNOWN_POLICY,
        ErrorKind.BAD_POLICY,
        ErrorKind.NO_SLOT,
        ErrorKind.NOT_ALLOWED,
    }
)
LOSSES = {ErrorKind.SANDBOX_LOST: Outcome.SANDBOX_LOST, ErrorKind.HOST_LOST: Outcome.HOST_LOST}


def refusal(error: ErrorInfo) -> ActivityError:
    """The failure of an activity that answered with an error instead of raising it."""
    return local_failure(ApplicationError(error.message, error.model_dump(mode="json"), type=error.kind.value))


def local_failure(cause: FailureError) -> ActivityError:
    """The failure of a local activity, which raises its cause alone, in the form that other activities give it."""
    failure = ActivityError(
        cause.message,
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type="",
        activity_id="",
        retry_state=None,
    )
    failure.__cause__ = cause
    return failure


def no_slot(spec: SandboxSpec) -> ErrorInfo:
    return ErrorInfo(
        kind=ErrorKind.NO_SLOT,
        message=f"no host of environment {spec.environment!r} had a free slot within {spec.place_timeout_s} s",
        field="place_timeout_s",
        remedy="wait for a sandbox to end, raise `slots` in the host's configuration, or start another host",
    )


def error_of(failure: ActivityError, spec: SandboxSpec) -> ErrorInfo:
    """The error that an activity's failure carries, or the one that its time-out means."""
    cause = failure.cause
    if isinstance(cause, TimeoutError):
        if cause.type == TimeoutType.SCHEDULE_TO_START and failure.activity_type == "reserve_slot":
            return no_slot(spec)
        if cause.type == TimeoutType.SCHEDULE_TO_START:
            return ErrorInfo(kind=ErrorKind.HOST_LOST, message="the host's worker does not answer")
        return ErrorInfo(kind=ErrorKind.TIMEOUT, message=f"{failure.activity_type} took too long: {cause}")
    if isinstance(cause, ApplicationError):
        try:
            return ErrorInfo.model_validate(cause.details[0])
        except (IndexError, ValidationError):
            return ErrorInfo(kind=ErrorKind.INTERNAL, message=f"{failure.activity_type}: {cause.type}: {cause.message}")
    return ErrorInfo(kind=ErrorKind.INTERNAL, message=f"{failure.activity_type}: {cause or failure}")


def is_loss(failure: ActivityError) -> bool:
    """Whether the failure says that the sandbox or its host is gone, which outranks any other reason to end."""
    return isinstance(failure.cause, ApplicationError) and failure.cause.type in {kind.value for kind in LOSSES}


def of_failure(failure: ActivityError, spec: SandboxSpec) -> tuple[tuple[Outcome, str], ErrorInfo]:
    """The outcome that a failed step means."""
    error = error_of(failure, spec)
    if error.kind in LOSSES:
        return (LOSSES[error.kind], error.message), error
    return (Outcome.REFUSED if error.kind in REFUSALS else Outcome.ERROR, error.message), error


def of_task(results: list[TaskResult]) -> tuple[Outcome, str]:
    """The outcome of a sandbox whose own work is over."""
    if not results:
        return Outcome.STOPPED, "no task"
    last = results[-1]
    return (Outcome.SUCCEEDED, "") if last.exit == 0 and not last.reason else (Outcome.FAILED, last.reason)


@dataclass
class Notes:
    """What the steps and their undos said, until it becomes the report."""

    steps_ms: dict[str, float] = field(default_factory=dict)
    receipts: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    by_step: dict[str, tuple[Receipt, ...]] = field(default_factory=dict)
    audit: AuditSummary = field(default_factory=AuditSummary)
    denied: tuple[Denial, ...] = ()
    outputs: tuple[OutputFile, ...] = ()

    def add(self, step: str, answer: hosts.Undone | hosts.Sealed) -> None:
        """Keep what an undo answered; asked again, its newer receipts replace the older."""
        self.denied = answer.denied or self.denied
        if isinstance(answer, hosts.Sealed):
            self.audit = answer.audit
            return
        self.by_step[step] = answer.receipts
        self.receipts.update({(receipt.resource, receipt.id): receipt for receipt in answer.receipts})

    def implied(self, step: Step, checked_by: str, now: datetime) -> None:
        """What a step made went with its host; what was proved before stays proved."""
        before = {receipt.resource: receipt for receipt in self.by_step.get(step.name, ())}
        gone = [one for one in before.values() if one.gone == Gone.PROVED]
        for resource in step.receipts:
            if resource not in {one.resource for one in gone}:
                name = before[resource].id if resource in before else ""
                gone.append(
                    Receipt(resource=resource, id=name, gone=Gone.IMPLIED_BY_HOST, checked_by=checked_by, at=now)
                )
        self.receipts = {key: one for key, one in self.receipts.items() if one.resource not in step.receipts}
        self.add(step.name, hosts.Undone(receipts=tuple(gone)))

    @property
    def any_implied(self) -> bool:
        return any(receipt.gone == Gone.IMPLIED_BY_HOST for receipt in self.receipts.values())

    def lapsed(self, step: str, now: datetime) -> None:
        """Nobody answered the placement: the reservation lapses by its own lease in the host's table."""
        if step == "place":
            receipt = Receipt(
                resource="slot",
                id="",
                gone=Gone.PROVED,
                checked_by="no host's answer was taken; a reservation lapses by its lease",
                at=now,
            )
            self.add(step, hosts.Undone(receipts=(receipt,)))

    def unproved(self, step: Step) -> str:
        """What the undo of this step leaves open, in words; empty when all that it must prove is proved."""
        answered = self.by_step.get(step.name, ())
        missing = sorted({*step.receipts} - {receipt.resource for receipt in answered})
        open_ = [f"{r.resource} {r.id}: {r.checked_by}" for r in answered if r.gone == Gone.UNPROVED]
        return "; ".join([*open_, *(f"{resource}: no receipt" for resource in missing)])

    def report(
        self,
        ref: hosts.SandboxRef,
        how: Outcome,
        why: str,
        results: list[TaskResult],
        policy_digest: str,
        error: ErrorInfo | None,
    ) -> SandboxReport:
        return SandboxReport(
            sandbox_id=ref.sandbox_id,
            outcome=how,
            reason=why,
            task=results[-1] if results else None,
            steps_ms={name: round(ms, 1) for name, ms in self.steps_ms.items()},
            receipts=tuple(self.receipts.values()),
            audit=self.audit,
            policy_digest=policy_digest,
            host=ref.host,
            outputs=self.outputs,
            denied=self.denied,
            error=error,
        )
