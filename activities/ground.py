"""The host itself: one heartbeat for its whole life, and a look at what it holds when it comes back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from temporalio import activity
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.running import BEAT_S, beating
from paddock.contracts.hosts import HostSpec, SandboxRef
from paddock.host.messages import Held

log = logging.getLogger(__name__)
Inventory = Callable[[], Awaitable[tuple[Held, ...]]]
Undo = Callable[[SandboxRef], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class HostActivities:
    """What a host's own worker says for it; `undos` end a sandbox, in their order."""

    inventory: Inventory
    undos: tuple[Undo, ...]

    @activity.defn
    async def hold_host(self, spec: HostSpec) -> None:
        """Heartbeat for as long as this worker runs; found again by the next one."""
        while True:
            activity.heartbeat(spec.host)
            await asyncio.sleep(BEAT_S)

    @activity.defn
    async def check_host(self, spec: HostSpec) -> int:
        """A host that is back ends what it still holds of sandboxes that ended without it; answers how many.

        Their workflows are surely over: the server says so of that very run. One that it does not know is left to the
        sweep, which asks twice and has a guard.
        """
        log.info("host %s is back", spec.host)
        ended = 0
        async with beating():
            for held in await self.inventory():
                if not held.protected and await _is_over(held.ref):
                    for undo in self.undos:
                        await undo(held.ref)
                    ended += 1
        return ended


async def _is_over(ref: SandboxRef) -> bool:
    """Whether the sandbox's workflow has ended; a run that goes on as another is the same sandbox."""
    client = activity.client()
    try:
        run = await client.get_workflow_handle(ref.workflow_id, run_id=ref.run_id).describe()
        if run.status is not WorkflowExecutionStatus.RUNNING:  # continued, or reset: the same sandbox
            last = await client.get_workflow_handle(ref.workflow_id).describe()
            run = last if _first_run(last) == ref.run_id else run
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return run.status is not WorkflowExecutionStatus.RUNNING


def _first_run(described: WorkflowExecutionDescription) -> str:
    return described.raw_description.workflow_execution_info.first_run_id
