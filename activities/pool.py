"""What a pool of hosts sees: hosts and demand by Temporal's index; and how a host that leaves is emptied."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from temporalio import activity
from temporalio.client import WorkflowExecution, WorkflowUpdateStage
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.running import beating
from paddock.contracts import names
from paddock.contracts.errors import ErrorKind
from paddock.contracts.hosts import HostNews, HostSpec
from paddock.contracts.ids import EnvironmentName
from paddock.contracts.pool import PoolHost, PoolView
from paddock.contracts.report import SandboxReport
from paddock.contracts.status import State

SLOTS, SINCE = "slots", "since"  # a host's memo
OVER = frozenset({State.ENDING, State.ENDED})
QUICKLY = timedelta(seconds=10)
ENVIRONMENT: TypeAdapter[str] = TypeAdapter(EnvironmentName)


def _open_sandboxes(environment: str, host: str = "") -> str:
    query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running" AND {names.ENVIRONMENT}="{environment}"'
    return f'{query} AND {names.HOST_ATTRIBUTE}="{host}"' if host else query


@activity.defn
async def view_pool(environment: str) -> PoolView:
    """Every open `Host` of an environment with how many sandboxes are on it, and how many wait for a host.

    Raises ApplicationError, not to be tried again, for what is no environment's name.
    """
    try:
        ENVIRONMENT.validate_python(environment)  # the SDK does not look at what a plain argument may hold
    except ValidationError as wrong:
        words = f"{environment!r} is no environment: {wrong.errors()[0]['msg']}"
        raise ApplicationError(words, type=ErrorKind.BAD_SPEC.value, non_retryable=True) from None
    client, prefix = activity.client(), names.host_workflow_id(environment, "")
    hosts = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{prefix}"'
    placed, state = SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE), SearchAttributeKey.for_keyword(names.STATE)
    used, waiting = Counter[str](), 0
    async with beating():
        async for one in client.list_workflows(_open_sandboxes(environment)):
            host = one.typed_search_attributes.get(placed)
            if host:
                used[host] += 1
            else:
                waiting += one.typed_search_attributes.get(state) not in OVER
        seen = []
        async for one in client.list_workflows(hosts):
            host = one.id.removeprefix(prefix)
            slots = int(await one.memo_value(SLOTS, 0))
            at = one.typed_search_attributes.get(state) or "recorded"
            made = one.parent_id == names.pool_workflow_id(environment)
            age_s = max(0.0, (datetime.now(UTC) - await _since(one)).total_seconds())
            seen.append(PoolHost(host=host, state=at, slots=slots, used=used[host], made=made, age_s=age_s))
    return PoolView(hosts=tuple(seen), waiting=waiting)


async def _since(host: WorkflowExecution) -> datetime:
    """When a host was first started; its present run may go on where another left off, and began later."""
    said = await host.memo_value(SINCE, "")
    try:
        since = datetime.fromisoformat(str(said))
    except ValueError:
        return host.start_time
    return since if since.tzinfo else since.replace(tzinfo=UTC)


@activity.defn
async def count_sandboxes(spec: HostSpec) -> int:
    """How many open sandboxes are on a host, as Temporal's index knows it."""
    async with beating():
        return (await activity.client().count_workflows(_open_sandboxes(spec.environment, spec.host))).count


@activity.defn
async def stop_sandboxes(news: HostNews) -> int:
    """Ask every open sandbox of a host to stop, with the reason; answers how many took it. Twice does no harm."""
    client, told = activity.client(), 0
    async with beating():
        async for found in client.list_workflows(_open_sandboxes(news.environment, news.host)):
            handle = client.get_workflow_handle(found.id, run_id=found.run_id)
            try:
                await handle.start_update(
                    "stop",
                    news.words,
                    wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                    result_type=SandboxReport,
                    rpc_timeout=QUICKLY,
                )
                told += 1
            except RPCError as wrong:  # it ended meanwhile, or is ending: the next count tells
                activity.logger.info("stopping %s: %s", found.id, wrong)
    return told
