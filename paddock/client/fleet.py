"""Starting a sweep of an environment by hand, and following it to its report."""

import asyncio
from collections.abc import Callable
from typing import Final

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.directory import QUICKLY
from paddock.client.errors import ClientError
from paddock.client.failures import FAILURES, persist, typed
from paddock.contracts import names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.fleet import CleanupProgress, CleanupReport, CleanupSpec

WATCH_S: Final = 0.5
Watch = Callable[[CleanupProgress], None]


class SweepGoingOn(ClientError):
    """Another sweep of the environment is going on: two at once would only report each other's work."""


def _going_on(workflow_id: str) -> SweepGoingOn:
    return SweepGoingOn(
        ErrorInfo(
            kind=ErrorKind.NOT_ALLOWED,
            message="a sweep of this environment is going on already",
            field=workflow_id,
            remedy="wait for its end, or cancel that workflow, and ask again",
        )
    )


async def cleanup(client: Client, spec: CleanupSpec, watch: Watch) -> CleanupReport:
    """Sweep, and tell `watch` where the sweep is; raises SweepGoingOn when one runs, by its schedule or by hand.

    Whoever leaves before the end leaves the sweep running.
    """
    workflow_id = names.cleanup_workflow_id(spec.environment)
    try:
        if scheduled := await _scheduled(client, spec.environment):
            raise _going_on(scheduled)
        handle = await client.start_workflow(
            names.FLEET_CLEANUP,
            spec,
            id=workflow_id,
            task_queue=names.CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            result_type=CleanupReport,
            static_summary=f"sweep of {spec.environment} by hand" + (", dry run" if spec.dry_run else ""),
        )
    except WorkflowAlreadyStartedError as wrong:
        raise _going_on(workflow_id) from wrong
    except FAILURES as wrong:
        raise typed(wrong, workflow_id) from wrong
    watch(CleanupProgress(stage=f"started {workflow_id}"))
    result: asyncio.Future[CleanupReport] = asyncio.ensure_future(persist(handle.result))
    try:
        while not result.done():
            await asyncio.wait((result,), timeout=WATCH_S)
            try:
                watch(await handle.query("progress", result_type=CleanupProgress, rpc_timeout=QUICKLY))
            except FAILURES:
                continue  # no control worker answers just now; the result says what became of it
        return result.result()
    except WorkflowFailureError as wrong:
        message = f"the sweep did not come to its end: {wrong.cause}"
        raise ClientError(ErrorInfo(kind=ErrorKind.INTERNAL, message=message, field=workflow_id)) from wrong
    except FAILURES as wrong:
        raise typed(wrong, workflow_id) from wrong
    finally:
        result.cancel()


async def _scheduled(client: Client, environment: str) -> str:
    """The workflow of the schedule's own sweep, when one runs."""
    handle = client.get_schedule_handle(names.cleanup_schedule_id(environment))
    try:
        running = (await handle.describe(rpc_timeout=QUICKLY)).info.running_actions
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return ""
        raise
    return next((str(getattr(action, "workflow_id", "")) for action in running), "")
