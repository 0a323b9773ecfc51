"""What a zone's operations tell about a machine that Google does not show: a 404 alone proves nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.cloud import compute_v1

from providers.contract import HostState, ProviderError
from providers.gcp.errors import of_operation
from providers.gcp.wire import when

# A machine that was made this short a time ago may not be shown yet.
UNSEEN: Final = timedelta(seconds=60)
DONE: Final = compute_v1.Operation.Status.DONE
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Story:
    """`state` is GONE only when nothing runs or ran that could still show a machine.

    `failure` is why the last creation failed, and `failed` the names of all operations that say so.
    """

    state: HostState
    began: datetime | None = None
    failure: ProviderError | None = None
    failed: tuple[str, ...] = ()


def read(operations: Sequence[compute_v1.Operation], now: datetime) -> Story:
    """The story of one machine, from every operation on it, while a look-up says 404."""
    ends = [one for one in operations if one.operation_type == "delete"]
    makes = sorted((one for one in operations if one.operation_type == "insert"), key=_asked)
    failed = tuple(one.name for one in makes if one.status == DONE and of_operation(one))
    began = when(makes[-1].insert_time) if makes else None
    if any(one.status != DONE for one in ends):  # Google says 404 before the machine has ended
        return Story(HostState.DELETING, began)
    if not makes:
        return Story(HostState.GONE)
    made = makes[-1]
    if made.status != DONE:
        return Story(HostState.PENDING, began)
    if failure := of_operation(made):
        return Story(HostState.GONE, began, failure, failed)
    ended = any(_asked(one) >= _asked(made) and not of_operation(one) for one in ends)
    if not ended and now - (when(made.end_time) or _asked(made)) < UNSEEN:
        return Story(HostState.PENDING, began)
    return Story(HostState.GONE, began, None, failed)


def _asked(operation: compute_v1.Operation) -> datetime:
    return when(operation.insert_time) or _LONG_AGO
