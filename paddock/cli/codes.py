"""Exit codes: the task's own, and what Paddock says when there is none."""

from typing import Final

from paddock.contracts.errors import ErrorKind
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import FAILS_THE_WORKFLOW, SandboxReport

FINE: Final = 0
BROKEN: Final = 1
WRONG_USE: Final = 2
CANNOT_TELL: Final = 3
TIMED_OUT: Final = 124
PADDOCK_FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

_NEVER_RAN: Final = {
    ErrorKind.TIMEOUT: TIMED_OUT,
    ErrorKind.NOT_EXECUTABLE: NOT_EXECUTABLE,
    ErrorKind.NOT_FOUND: NOT_FOUND,
}
_WRONG_USE: Final = frozenset(
    {ErrorKind.BAD_SPEC, ErrorKind.UNKNOWN_IMAGE, ErrorKind.UNKNOWN_POLICY, ErrorKind.BAD_POLICY, ErrorKind.NOT_FOUND}
)
_CANNOT_TELL: Final = frozenset({ErrorKind.UNREACHABLE, ErrorKind.SET_UP})


def of_task(done: TaskDone) -> int:
    """As `docker run` has it: the program's own, 128+n for a signal, 124 to 127 for what kept it from ending itself."""
    if done.error is not None and done.error.kind in _NEVER_RAN:
        return _NEVER_RAN[done.error.kind]
    if done.error is not None:
        return PADDOCK_FAILED
    result = done.result
    if result.reason.startswith(("timeout", "timed out")):
        return TIMED_OUT
    if result.exit is not None:
        return result.exit
    return 128 + result.signal if result.signal is not None else PADDOCK_FAILED


def of_report(report: SandboxReport) -> int:
    """The code of a sandbox that ran the task in its spec and ended."""
    never_ran = report.error is not None and report.error.kind in _NEVER_RAN
    if report.outcome in FAILS_THE_WORKFLOW or report.task is None:
        return PADDOCK_FAILED
    return of_task(TaskDone(result=report.task, error=report.error if never_ran else None))


def of_error(kind: ErrorKind) -> int:
    """The code of a command that is not about a task."""
    if kind in _WRONG_USE:
        return WRONG_USE
    return CANNOT_TELL if kind in _CANNOT_TELL else BROKEN
