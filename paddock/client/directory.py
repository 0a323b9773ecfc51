"""Finding sandboxes: by name, by workflow id, or all of them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.errors import NoSuchSandbox
from paddock.client.failures import FAILURES, persist, report_in, typed
from paddock.contracts import names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import SandboxReport
from paddock.contracts.status import Status

QUICKLY: Final = timedelta(seconds=10)
_PREFIX: Final = names.sandbox_workflow_id("")
_LEASE_END: Final = SearchAttributeKey.for_datetime(names.LEASE_END)


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One line of a list, as Temporal's index knows it, a moment late."""

    name: str
    workflow_id: str
    sandbox_id: str
    state: str
    host: str
    policy: str
    owner: str
    started: datetime | None
    ended: datetime | None
    lease_end: datetime | None


class Directory:
    """Sandboxes of one namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self, all_: bool, limit: int) -> AsyncGenerator[SandboxInfo, None]:
        """Running sandboxes, or with `all_` the ended ones too, newest first."""
        query = f'WorkflowType="{names.SANDBOX}"' + ("" if all_ else ' AND ExecutionStatus="Running"')
        try:
            async for found in self._client.list_workflows(query, limit=limit):
                yield _info(found)
        except FAILURES as wrong:
            raise typed(wrong, "list") from wrong

    async def handle(self, name: str) -> WorkflowHandle[Any, SandboxReport]:
        """The sandbox of this name, or of this workflow id; raises NoSuchSandbox."""
        for workflow_id in dict.fromkeys((name if "/" in name else names.sandbox_workflow_id(name), name)):
            handle: WorkflowHandle[Any, SandboxReport] = self._client.get_workflow_handle(
                workflow_id, result_type=SandboxReport
            )
            try:
                found = await handle.describe(rpc_timeout=QUICKLY)
            except UnicodeEncodeError:
                continue  # bytes of a command line that are no text
            except RPCError as wrong:
                if wrong.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                    continue
                raise typed(wrong, name) from wrong
            if found.workflow_type == names.SANDBOX:
                return handle
        raise NoSuchSandbox(
            ErrorInfo(
                kind=ErrorKind.NOT_FOUND,
                message="no such sandbox",
                field=name if name.isprintable() else ascii(name),
                remedy="`paddock sandbox ls --all` lists them",
            )
        )

    async def status(self, name: str) -> Status:
        """Where it is, from the workflow itself."""
        handle = await self.handle(name)
        try:
            status: Status = await handle.query("status", result_type=Status, rpc_timeout=QUICKLY)
        except FAILURES as wrong:
            raise typed(wrong, name) from wrong
        return status

    async def report(self, name: str) -> SandboxReport | None:
        """Its report once it has ended, from its result or from the failure that carries it."""
        handle = await self.handle(name)
        if (await handle.describe(rpc_timeout=QUICKLY)).status == WorkflowExecutionStatus.RUNNING:
            return None
        return await self._ended(handle, name)

    async def stop(self, name: str, reason: str) -> SandboxReport:
        """End it and wait for its receipts; the report of one that ended already or failed at it."""
        handle = await self.handle(name)
        try:
            return await persist(lambda: handle.execute_update("stop", reason, result_type=SandboxReport))
        except FAILURES as wrong:
            if (await handle.describe(rpc_timeout=QUICKLY)).status == WorkflowExecutionStatus.RUNNING:
                raise typed(wrong, name) from wrong
        return await self._ended(handle, name)

    @staticmethod
    async def _ended(handle: WorkflowHandle[Any, SandboxReport], name: str) -> SandboxReport:
        try:
            return await persist(handle.result)
        except FAILURES as wrong:
            report = report_in(wrong)
            if report is None:
                raise typed(wrong, name) from wrong
            return report


def _info(found: WorkflowExecution) -> SandboxInfo:
    known = found.typed_search_attributes

    def word(name: str) -> str:
        return known.get(SearchAttributeKey.for_keyword(name)) or ""

    running = found.status == WorkflowExecutionStatus.RUNNING
    status = found.status.name.lower() if found.status else "unknown"
    first = found.raw_info.first_run_id or found.run_id
    return SandboxInfo(
        name=found.id.removeprefix(_PREFIX),
        workflow_id=found.id,
        sandbox_id=sandbox_id(found.id, first),
        state=(word(names.STATE) or "admitted") if running else status,
        host=word(names.HOST_ATTRIBUTE),
        policy=word(names.POLICY),
        owner=word(names.OWNER),
        started=found.start_time,
        ended=found.close_time,
        lease_end=known.get(_LEASE_END),
    )
