"""Exit codes are `docker run`'s, and nothing that Paddock failed at looks like the task's own end."""

import pytest

from paddock.cli import codes
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import Outcome, SandboxReport, TaskResult


def report(outcome: Outcome, task: TaskResult | None = None, kind: ErrorKind | None = None) -> SandboxReport:
    error = ErrorInfo(kind=kind, message="x") if kind else None
    return SandboxReport(sandbox_id="sb-" + "0" * 20, outcome=outcome, task=task, error=error)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (report(Outcome.SUCCEEDED, TaskResult(exit=0)), 0),
        (report(Outcome.FAILED, TaskResult(exit=42)), 42),
        (report(Outcome.FAILED, TaskResult(signal=9)), 137),
        (report(Outcome.FAILED, TaskResult(signal=9, reason="timeout")), 124),
        (report(Outcome.FAILED, TaskResult(), ErrorKind.NOT_FOUND), 127),
        (report(Outcome.FAILED, TaskResult(), ErrorKind.NOT_EXECUTABLE), 126),
        (report(Outcome.LEASE_ENDED), 125),
        (report(Outcome.STOPPED), 125),
        (report(Outcome.ERROR, TaskResult(exit=0), ErrorKind.OUTPUT_LIMIT), 125),
        (report(Outcome.SANDBOX_LOST, TaskResult(exit=0)), 125),
        (report(Outcome.REFUSED, None, ErrorKind.UNKNOWN_IMAGE), 125),
        (report(Outcome.FAILED, TaskResult()), 125),
    ],
)
def test_a_run_ends_with_the_code_of_its_report(ended: SandboxReport, code: int) -> None:
    assert codes.of_report(ended) == code


def test_an_error_beside_a_result_wins() -> None:
    done = TaskDone(result=TaskResult(exit=0), error=ErrorInfo(kind=ErrorKind.DISK_FULL, message="x"))
    assert codes.of_task(done) == codes.PADDOCK_FAILED


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ErrorKind.BAD_SPEC, 2), (ErrorKind.UNREACHABLE, 3), (ErrorKind.AUDIT_BROKEN, 1), (ErrorKind.INTERNAL, 1)],
)
def test_other_commands_tell_wrong_use_broken_and_unknown_apart(kind: ErrorKind, code: int) -> None:
    assert codes.of_error(kind) == code
