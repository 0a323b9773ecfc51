"""What a host's sandboxes must hear of it."""

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from activities.running import beating
from paddock.contracts import names
from paddock.contracts.hosts import HostNews


@activity.defn
async def tell_sandboxes(news: HostNews) -> int:
    """Signal every running sandbox of a host that the host is lost, or gone; answers how many were told.

    Found by visibility, which lags a little: whoever calls this calls it again. Told twice does no harm.
    """
    query = (
        f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running" '
        f'AND {names.ENVIRONMENT}="{news.environment}" AND {names.HOST_ATTRIBUTE}="{news.host}"'
    )
    client, told = activity.client(), 0
    async with beating():
        async for found in client.list_workflows(query):
            handle = client.get_workflow_handle(found.id, run_id=found.run_id)
            try:
                await handle.signal("host_gone" if news.gone else "host_lost", news.words)
                told += 1
            except RPCError as wrong:
                if wrong.status is not RPCStatusCode.NOT_FOUND:  # it ended meanwhile
                    raise
    return told
