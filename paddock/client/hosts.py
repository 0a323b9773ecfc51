"""Hosts: those of an environment, where one is, its drain, and the report of its end."""

from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.directory import QUICKLY
from paddock.client.errors import BadSpec, ClientError
from paddock.client.failures import FAILURES, bad_spec, persist, typed
from paddock.client.pool import fits, shown
from paddock.contracts import names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.ground import DrainSpec, HostReport
from paddock.contracts.hosts import HostSpec
from paddock.contracts.ids import EnvironmentName, HostId

_SLOTS: Final = "slots"  # a host's memo
_STATE: Final = SearchAttributeKey.for_keyword(names.STATE)
_ENVIRONMENT_KEY: Final = SearchAttributeKey.for_keyword(names.ENVIRONMENT)
_HOST_KEY: Final = SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE)
_ENVIRONMENT: Final[TypeAdapter[str]] = TypeAdapter(EnvironmentName)
_HOST: Final[TypeAdapter[str]] = TypeAdapter(HostId)
_PREFIX: Final = names.host_workflow_id("", "")[:-1]
_RUNNING: Final = WorkflowExecutionStatus.RUNNING
_OUTCOMES: Final = {
    WorkflowExecutionStatus.COMPLETED: "gone",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed-out",
}


class NoSuchHost(ClientError):
    """No host of this name was ever in that environment, as far as Temporal remembers."""


class HostEnded(NoSuchHost):
    """The host has ended; its report says how."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One host; of a list, as Temporal's index knows it, a moment late.

    `state` of one that ended is how: gone, failed (no machine proved itself), cancelled, terminated. `by_pool`: its
    environment's pool made it.
    """

    environment: str
    host: str
    workflow_id: str
    state: str
    slots: int
    used: int
    by_pool: bool
    since: datetime | None
    ended: datetime | None


class Host:
    """One host of an environment, by its name."""

    def __init__(self, client: Client, environment: str, host: str) -> None:
        self._client, self.environment, self.host = client, environment, host

    async def status(self) -> HostInfo:
        """Where it is, from its own workflow, and how many open sandboxes are on it. Raises NoSuchHost."""
        handle, found = await self._described()
        if found.status is not _RUNNING:
            return await _info(found, 0)
        try:
            state: str = await handle.query("status", result_type=str, rpc_timeout=QUICKLY)
            query = _sandboxes(self.environment, self.host)
            used = await self._client.count_workflows(query, rpc_timeout=QUICKLY)
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong
        return await _info(found, used.count, state)

    async def made(self) -> bool:
        """Whether Paddock has its machine made, and ends it; False for one that joined. Raises NoSuchHost."""
        handle, _ = await self._described()
        try:
            event = await anext(handle.fetch_history_events(page_size=1, rpc_timeout=QUICKLY))
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong
        given = event.workflow_execution_started_event_attributes.input.payloads
        try:
            spec = (await self._client.data_converter.decode(given[:1], [HostSpec]) or [None])[0]
        except ValidationError:
            return False  # nobody's order: such a workflow failed at once
        return spec is not None and spec.wanted is not None

    async def drain(self, *, wait_s: int | None = None, reason: str | None = None) -> None:
        """No new sandboxes; once it is empty it goes, and what Paddock made is ended. `result` waits for that.

        Sandboxes that are left after `wait_s` are stopped; fields as in DrainSpec. The first drain counts. Raises
        BadSpec, NoSuchHost, and HostEnded when it has ended.
        """
        given = {name: value for name, value in (("wait_s", wait_s), ("reason", reason)) if value is not None}
        try:
            how = DrainSpec.model_validate(given)
        except ValidationError as wrong:
            raise bad_spec(wrong) from wrong
        handle, found = await self._described()
        if found.status is not _RUNNING:
            raise self._over(found)
        try:
            await persist(lambda: handle.signal("drain", how, rpc_timeout=QUICKLY))
        except RPCError as wrong:
            if wrong.status is RPCStatusCode.NOT_FOUND:
                raise self._over((await self._described())[1]) from wrong
            raise typed(wrong, handle.id) from wrong

    async def report(self) -> HostReport | None:
        """What was tried and what is proved gone, once it has ended, also of one that failed; None while it has not.

        Raises NoSuchHost, and ClientError for one without a report, as after `terminate`, which runs no code.
        """
        handle, found = await self._described()
        return None if found.status is _RUNNING else await self._ended(handle)

    async def result(self) -> HostReport:
        """The report, once it has ended; raises as `report` does."""
        return await self._ended((await self._described())[0])

    async def _described(self) -> tuple[WorkflowHandle[Any, HostReport], WorkflowExecutionDescription]:
        workflow_id = names.host_workflow_id(self.environment, self.host)
        if not (fits(_ENVIRONMENT, self.environment) and fits(_HOST, self.host)):
            raise self._none(shown(workflow_id))
        handle: WorkflowHandle[Any, HostReport] = self._client.get_workflow_handle(workflow_id, result_type=HostReport)
        try:
            return handle, await handle.describe(rpc_timeout=QUICKLY)
        except RPCError as wrong:
            if wrong.status is RPCStatusCode.NOT_FOUND:
                raise self._none(workflow_id) from wrong
            raise typed(wrong, workflow_id) from wrong

    async def _ended(self, handle: WorkflowHandle[Any, HostReport]) -> HostReport:
        try:
            return await persist(handle.result)
        except WorkflowFailureError as wrong:
            report = _report_in(wrong.cause)
            if report is not None:
                return report
            raise self._without_report(wrong.cause, handle.id) or typed(wrong, handle.id) from wrong
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong

    def _without_report(self, cause: BaseException, workflow_id: str) -> ClientError | None:
        if isinstance(cause, TerminatedError):
            words = "its workflow was terminated, so nobody ended what Paddock made for it; the sweep does"
        elif isinstance(cause, CancelledError):
            words = "its workflow was cancelled: Paddock does not know it any more"
        else:
            return None
        remedy = f"`paddock fleet cleanup --environment {self.environment}` sweeps now"
        return ClientError(ErrorInfo(kind=ErrorKind.INTERNAL, message=words, field=workflow_id, remedy=remedy))

    def _over(self, found: WorkflowExecution) -> HostEnded:
        how = _OUTCOMES.get(found.status, "") if found.status else ""
        words = f"host {self.host} of {self.environment} has ended: {how}"
        remedy = f"`paddock host show {self.environment} {self.host}` has its report"
        return HostEnded(ErrorInfo(kind=ErrorKind.NOT_FOUND, message=words, field=found.id, remedy=remedy))

    def _none(self, workflow_id: str) -> NoSuchHost:
        words = f"there is no host {shown(self.host)} of {shown(self.environment)}"
        remedy = "`paddock host ls --all` lists them"
        return NoSuchHost(ErrorInfo(kind=ErrorKind.NOT_FOUND, message=words, field=workflow_id, remedy=remedy))


async def hosts(client: Client, environment: str | None, all_: bool, limit: int) -> AsyncGenerator[HostInfo, None]:
    """Open hosts of one environment or of every one, newest first; with `all_` those that ended too."""
    if environment is not None and not fits(_ENVIRONMENT, environment):
        words = "an environment's name has 1 to 63 small letters, digits and `-`, and begins with none of the last"
        raise BadSpec(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=words, field="environment"))
    prefix = names.host_workflow_id(environment, "") if environment else _PREFIX
    which = 'ExecutionStatus!="ContinuedAsNew"' if all_ else 'ExecutionStatus="Running"'
    query = f'WorkflowType="{names.HOST}" AND {which} AND WorkflowId STARTS_WITH "{prefix}"'
    used = Counter[tuple[str, str]]()
    try:
        async for box in client.list_workflows(_sandboxes(environment)):
            known = box.typed_search_attributes
            used[known.get(_ENVIRONMENT_KEY) or "", known.get(_HOST_KEY) or ""] += 1
        async for found in client.list_workflows(query, limit=limit):
            running = found.status is _RUNNING
            yield await _info(found, used[_named(found.id)] if running else 0)
    except FAILURES as wrong:
        raise typed(wrong, "hosts") from wrong


def _sandboxes(environment: str | None, host: str = "") -> str:
    query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running"'
    query += f' AND {names.ENVIRONMENT}="{environment}"' if environment else ""
    return f'{query} AND {names.HOST_ATTRIBUTE}="{host}"' if host else query


def _named(workflow_id: str) -> tuple[str, str]:
    """Environment and host that a workflow id names."""
    _, _, rest = workflow_id.partition("/")
    environment, _, host = rest.partition("/")
    return environment, host


async def _info(found: WorkflowExecution, used: int, state: str = "") -> HostInfo:
    environment, host = _named(found.id)
    indexed = found.typed_search_attributes.get(_STATE) or "recorded"
    return HostInfo(
        environment=environment,
        host=host,
        workflow_id=found.id,
        state=_OUTCOMES.get(found.status, state or indexed) if found.status else indexed,
        slots=int(await found.memo_value(_SLOTS, 0)),
        used=used,
        by_pool=found.parent_id == names.pool_workflow_id(environment),
        since=found.start_time,
        ended=found.close_time,
    )


def _report_in(cause: BaseException) -> HostReport | None:
    if not isinstance(cause, ApplicationError) or not cause.details:
        return None
    try:
        return HostReport.model_validate(cause.details[0])
    except ValidationError:
        return None
