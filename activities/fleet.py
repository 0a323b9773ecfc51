"""What a sweep sees and does: open workflows by Temporal's index, one of them closely, and a host's own inventory."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from temporalio import activity
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from activities.running import beating
from paddock.contracts import names
from paddock.contracts.errors import PaddockError
from paddock.contracts.fleet import (
    PAGE,
    Closer,
    Forget,
    HostInventory,
    ListSandboxes,
    OpenHosts,
    OpenSandbox,
    OpenSandboxes,
    OtherSweep,
    Told,
    Workflow,
)
from paddock.contracts.hosts import HostSpec, Undone
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone, Receipt
from paddock.contracts.status import Status
from paddock.host import inventory
from paddock.host.config import HostConfig
from paddock.host.link import KeeperLink
from paddock.host.objects import ObjectStore
from paddock.host.slots import Slots

QUICKLY: Final = timedelta(seconds=10)
SERVER_PAGE: Final = 1000  # Temporal lists no more at once
RUNNING: Final = WorkflowExecutionStatus.RUNNING


@activity.defn
async def list_hosts(environment: str) -> OpenHosts:
    """The hosts of an environment whose `Host` workflow is open, with their states; and those of the others."""
    own = names.host_workflow_id(environment, "")
    every = own.removesuffix(f"{environment}/")
    query = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{every}"'
    state = SearchAttributeKey.for_keyword(names.STATE)
    states: dict[str, str] = {}
    elsewhere: set[str] = set()
    async with beating():
        async for one in activity.client().list_workflows(query):
            if one.id.startswith(own):
                states[one.id.removeprefix(own)] = one.typed_search_attributes.get(state) or ""
            else:
                elsewhere.add(one.id.rpartition("/")[2])
    return OpenHosts(hosts=tuple(sorted(states)), states=states, elsewhere=tuple(sorted(elsewhere)))


@activity.defn
async def list_sandboxes(ask: ListSandboxes) -> OpenSandboxes:
    """One page of the open `Sandbox` workflows of an environment: about PAGE of them, as one answer may hold."""
    query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running" AND {names.ENVIRONMENT}="{ask.environment}"'
    now = datetime.now(UTC)
    async with beating():
        pages = activity.client().list_workflows(
            query, page_size=min(PAGE, SERVER_PAGE), next_page_token=base64.b64decode(ask.page) or None
        )
        open_: list[OpenSandbox] = []
        while True:
            await pages.fetch_next_page()
            open_ += (_open(found, now) for found in pages.current_page or ())
            if not pages.next_page_token or len(open_) >= PAGE:
                page = base64.b64encode(pages.next_page_token or b"").decode()
                return OpenSandboxes(open=tuple(open_), page=page)


def _open(found: WorkflowExecution, now: datetime) -> OpenSandbox:
    known = found.typed_search_attributes
    return OpenSandbox(
        sandbox_id=sandbox_id(found.id, _first_run(found)),
        workflow_id=found.id,
        run_id=found.run_id,
        host=known.get(SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE)) or "",
        state=known.get(SearchAttributeKey.for_keyword(names.STATE)) or "",
        age_s=max(0.0, (now - found.start_time).total_seconds()),
    )


def _first_run(found: WorkflowExecution) -> str:
    return found.raw_info.first_run_id or found.run_id


async def _describe(handle: WorkflowHandle[object, object]) -> WorkflowExecutionDescription | None:
    """The workflow as its own history has it, not the index; None when there is none. Raises RPCError."""
    try:
        return await handle.describe(rpc_timeout=QUICKLY)
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


@activity.defn
async def look_closely(ask: Workflow) -> Closer:
    """Whether the workflow that owns a sandbox runs: that very run, or one that it was continued as or reset to.

    A newer workflow of the same name is another sandbox's, and says nothing about this one. Without a sandbox, as for
    a host, any run of the name is the one.
    """
    client = activity.client()
    async with beating():
        latest = await _describe(client.get_workflow_handle(ask.workflow_id))
        if latest is None:
            return Closer(running=False, words=f"there is no workflow {ask.workflow_id}")
        raw = latest.raw_description.workflow_execution_info
        same = not ask.sandbox_id or sandbox_id(latest.id, raw.first_run_id or latest.run_id) == ask.sandbox_id
        if same and latest.status is RUNNING:
            return Closer(running=True, words=f"workflow {ask.workflow_id} runs")
        owner = latest
        if not same and ask.run_id:
            exact = await _describe(client.get_workflow_handle(ask.workflow_id, run_id=ask.run_id))
            if exact is None:
                return Closer(running=False, words=f"workflow {ask.workflow_id} has no such run any more")
            owner = exact
        how = owner.status.name.lower().replace("_", " ") if owner.status else "closed"
        newer = "" if same else "; a newer workflow of its name is another sandbox's"
        return Closer(running=owner.status is RUNNING, words=f"workflow {ask.workflow_id} is {how}{newer}")


@activity.defn
async def tell_lost(ask: Workflow) -> Told:
    """Tell a sandbox's workflow that its host is lost, unless the host's own workflow runs after all."""
    client = activity.client()
    async with beating():
        host = await _describe(client.get_workflow_handle(names.host_workflow_id(ask.environment, ask.host)))
        if host is not None and host.status is RUNNING:
            return Told(told=False, words=f"the Host workflow of {ask.host} runs")
        words = f"no Host workflow is open for host {ask.host}"
        try:
            await client.get_workflow_handle(ask.workflow_id, run_id=ask.run_id).signal("host_lost", words)
        except RPCError as wrong:
            if wrong.status is not RPCStatusCode.NOT_FOUND:
                raise
            return Told(told=False, words="it ended meanwhile")
        return Told(told=True, words=words)


@activity.defn
async def ask_finding(ask: Workflow) -> str:
    """What a sandbox's workflow itself says holds it up; empty when it says nothing in time."""
    try:
        handle = activity.client().get_workflow_handle(ask.workflow_id, run_id=ask.run_id)
        status: Status = await handle.query("status", result_type=Status, rpc_timeout=QUICKLY)
    except RPCError:
        return ""
    return status.finding


@activity.defn
async def made_machine(ask: Workflow) -> bool:
    """Whether a host's workflow runs and had its machine made: one that joined is in no provider's list."""
    client = activity.client()
    async with beating():
        there = await _describe(client.get_workflow_handle(ask.workflow_id))
        if there is None or there.status is not RUNNING:
            return False
        handle = client.get_workflow_handle(ask.workflow_id, run_id=there.run_id)
        first = await anext(aiter(handle.fetch_history_events(page_size=1)))
        given = first.workflow_execution_started_event_attributes.input.payloads
        [spec] = await client.data_converter.decode(given, [HostSpec])
    return spec.wanted is not None


@activity.defn
async def other_sweep(environment: str) -> OtherSweep:
    """A sweep of the same environment that began before this one and still runs."""
    client, own = activity.client(), activity.info()
    mine = await client.get_workflow_handle(own.workflow_id or "", run_id=own.workflow_run_id).describe()
    query = (
        f'WorkflowType="{names.FLEET_CLEANUP}" AND ExecutionStatus="Running" AND {names.ENVIRONMENT}="{environment}"'
    )
    async with beating():
        async for found in client.list_workflows(query):
            if found.task_queue != names.CONTROL_QUEUE:  # nobody works on it: it must not stop the others for ever
                continue
            if found.id == own.workflow_id or (found.start_time, found.id) > (mine.start_time, mine.id):
                continue
            there = await _describe(client.get_workflow_handle(found.id))  # the index lags behind an end
            if there is not None and there.status is RUNNING:
                return OtherSweep(workflow_id=found.id)
    return OtherSweep()


ON_CONTROL: Final = (list_hosts, list_sandboxes, look_closely, tell_lost, ask_finding, made_machine, other_sweep)


@dataclass(frozen=True, slots=True)
class HostFleetActivities:
    """What one host holds, and what it may drop."""

    config: HostConfig
    keeper: KeeperLink
    slots: Slots
    objects: ObjectStore

    @activity.defn
    async def host_inventory(self, environment: str) -> HostInventory:
        """All that this host holds, by its keeper's, its broker's and its own looks."""
        del environment
        async with beating():
            survey = await self.keeper.ask("survey")
            try:
                leases = await self.keeper.ask("leases")
            except PaddockError:
                leases = None
            return inventory.join(self.config, survey, leases, self.slots, self.objects)

    @activity.defn
    async def forget_leftovers(self, ask: Forget) -> Undone:
        """Drop output and objects of sandboxes that nobody may ask for; the receipt comes from looking again."""
        async with beating(undo=True):
            receipts: list[Receipt] = []
            for sandbox in ask.sandboxes:
                if sandbox not in self.slots.remembered():
                    self.objects.forget(sandbox)
                    await self.keeper.ask("forget", sandbox_id=sandbox)
                for what, place in (
                    ("output", self.config.paths.output / sandbox),
                    ("objects", self.objects.folder(sandbox)),
                ):
                    gone = Gone.UNPROVED if place.exists() else Gone.PROVED
                    receipts.append(
                        Receipt(
                            resource=what,
                            id=sandbox,
                            gone=gone,
                            checked_by="directory not found",
                            at=datetime.now(UTC),
                        )
                    )
            return Undone(receipts=tuple(receipts))
