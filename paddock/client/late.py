"""Letting a caller in to what an ended sandbox left on its host; an ended workflow takes no `attach`."""

import uuid

from temporalio.client import Client

from paddock.client.failures import FAILURES, typed
from paddock.contracts import names
from paddock.contracts.status import Status
from paddock.contracts.streams import LateCaller


async def let_in(client: Client, status: Status, public_key: str) -> None:
    """Tell the host of an ended sandbox of a caller's key; the host ignores one that it has forgotten."""
    caller = LateCaller(
        sandbox_id=status.sandbox_id, environment=status.environment, host=status.host, caller_key=public_key
    )
    try:
        await client.execute_workflow(
            names.LATE_READER,
            caller,
            id=f"late/{status.sandbox_id}/{uuid.uuid4().hex[:12]}",
            task_queue=names.CONTROL_QUEUE,
            static_summary=f"a late reader of {status.workflow_id}"[:190],
        )
    except FAILURES as wrong:
        raise typed(wrong, status.workflow_id) from wrong
