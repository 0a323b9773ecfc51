"""What Temporal says went wrong, as the SDK's typed errors; and calls that outlive a restart of the server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pydantic import ValidationError
from temporalio.client import (
    RPCError,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError, WorkflowAlreadyStartedError
from temporalio.service import RPCStatusCode

from paddock.client.errors import (
    AlreadyExists,
    BadSpec,
    ClientError,
    NoSuchSandbox,
    Unreachable,
    from_info,
    from_report,
)
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.report import SandboxReport

PATIENCE_S: Final = 60.0
_WAITED_WELL_S: Final = 45.0  # longer than the SDK itself retries a call that nobody answers
_PASSES: Final = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.INTERNAL,
    }
)
T = TypeVar("T")


def bad_spec(wrong: ValidationError) -> BadSpec:
    """pydantic's words about the first wrong field, and how many more there are."""
    first, *more = wrong.errors(include_url=False, include_input=False)
    where = ".".join(str(part) for part in first["loc"])
    rest = f" (and {len(more)} more)" if more else ""
    return BadSpec(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=f"{first['msg']}{rest}", field=where))


def report_in(wrong: BaseException) -> SandboxReport | None:
    """The report that a failed sandbox carries in its failure."""
    found = _application(wrong)
    if found is None or not found.details:
        return None
    try:
        return SandboxReport.model_validate(found.details[0])
    except ValidationError:
        return None


def _application(wrong: BaseException | None) -> ApplicationError | None:
    while wrong is not None:
        if isinstance(wrong, ApplicationError):
            return wrong
        wrong = wrong.__cause__
    return None


def typed(wrong: BaseException, what: str) -> ClientError:
    """The typed error for a failed workflow, update, query or call; `what` is the sandbox or call that it was about."""
    if isinstance(wrong, ClientError):
        return wrong
    if isinstance(wrong, RPCError):
        return _rpc(wrong, what)
    if isinstance(wrong, WorkflowAlreadyStartedError):
        words = "a sandbox of this name is running"
        return AlreadyExists(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=words, field=what, remedy="name another"))
    found = _application(wrong)
    if found is not None:
        return _said(found, what)
    cause = wrong.__cause__
    if isinstance(cause, TerminatedError):
        words = "the workflow was terminated, so nobody tore the sandbox down; its lease and the sweep will"
        return ClientError(ErrorInfo(kind=ErrorKind.INTERNAL, message=words, field=what))
    if isinstance(cause, CancelledError):
        return ClientError(ErrorInfo(kind=ErrorKind.INTERNAL, message="the workflow was cancelled", field=what))
    if isinstance(wrong, WorkflowQueryFailedError | WorkflowUpdateRPCTimeoutOrCancelledError):
        return Unreachable(
            ErrorInfo(kind=ErrorKind.UNREACHABLE, message=f"no answer: {wrong}", field=what, remedy=_WORKER)
        )
    return ClientError(ErrorInfo(kind=ErrorKind.INTERNAL, message=str(cause or wrong), field=what))


_WORKER: Final = "is a control worker running? `paddock up` starts one"


def _said(found: ApplicationError, what: str) -> ClientError:
    report = report_in(found)
    if report is not None:
        return from_report(report)
    for detail in found.details:
        try:
            return from_info(ErrorInfo.model_validate(detail))
        except ValidationError:
            continue
    if found.type in set(ErrorKind):
        return from_info(ErrorInfo(kind=ErrorKind(found.type), message=found.message, field=what))
    return BadSpec(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=found.message, field=what))


def _rpc(wrong: RPCError, what: str) -> ClientError:
    if wrong.status == RPCStatusCode.NOT_FOUND:
        remedy = "`paddock sandbox ls --all` lists them"
        return NoSuchSandbox(
            ErrorInfo(kind=ErrorKind.NOT_FOUND, message="no such sandbox, or it has ended", field=what, remedy=remedy)
        )
    return Unreachable(
        ErrorInfo(
            kind=ErrorKind.UNREACHABLE,
            message=f"Temporal: {wrong.message or wrong.status.name}",
            field=what,
            remedy="is `paddock up` or the Temporal server running?",
        )
    )


FAILURES: Final = (
    RPCError,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowQueryFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowAlreadyStartedError,
)


async def persist(call: Callable[[], Awaitable[T]], patience_s: float = PATIENCE_S) -> T:
    """Make a call that may be repeated until the server answers it; its answer, or the last failure."""
    loop = asyncio.get_running_loop()
    deadline, delay = loop.time() + patience_s, 0.1
    while True:
        began = loop.time()
        try:
            return await call()
        except RPCError as wrong:
            if wrong.status not in _PASSES:
                raise
            if loop.time() - began > _WAITED_WELL_S:
                deadline, delay = loop.time() + patience_s, 0.1  # it had been waiting well until now
            if loop.time() > deadline:
                raise
        await asyncio.sleep(delay)
        delay = min(delay * 2, 2.0)
