"""Every schedule of Paddock, declared here and nowhere else, and put in place by each control worker as it starts.

Each environment that the worker is told of has one of its own.

What is declared wins over what somebody changed in a schedule's times or argument; that it is paused, why, and how
many runs are left are the operator's, and stay.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from paddock.contracts import names
from paddock.contracts.base import Strict
from paddock.contracts.fleet import CleanupSpec

log = logging.getLogger(__name__)
TRY_AGAIN_S: Final = 1.0
TRY_AGAIN_MOST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Declared:
    """One schedule: what it starts, how often, and what it says about itself."""

    id: str
    workflow: str
    argument: Strict
    every: timedelta
    jitter: timedelta
    catchup: timedelta
    summary: str

    def schedule(self, state: ScheduleState) -> Schedule:
        """As Temporal wants it; a run that is still going on makes the next one be skipped."""
        return Schedule(
            action=ScheduleActionStartWorkflow(
                self.workflow,
                self.argument,
                id=self.id,
                task_queue=names.CONTROL_QUEUE,
                static_summary=self.summary,
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=self.every)], jitter=self.jitter),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=self.catchup),
            state=state,
        )


def declared(environments: Sequence[str]) -> tuple[Declared, ...]:
    """All schedules of these environments."""
    return tuple(
        Declared(
            id=names.cleanup_schedule_id(environment),
            workflow=names.FLEET_CLEANUP,
            argument=CleanupSpec(environment=environment),
            every=timedelta(minutes=15),
            jitter=timedelta(minutes=1),
            catchup=timedelta(minutes=30),
            summary=f"sweep of environment {environment}",
        )
        for environment in environments
    )


async def keep(client: Client, wanted: Sequence[Declared]) -> None:
    """Put all of them in place, however long the server takes to be ready."""
    delay = TRY_AGAIN_S
    for one in wanted:
        while True:
            try:
                await upsert(client, one)
                break
            except RPCError as wrong:
                log.warning("schedule %s is not in place yet: %s", one.id, wrong)
                await asyncio.sleep(delay)
                delay = min(2 * delay, TRY_AGAIN_MOST_S)


async def upsert(client: Client, wanted: Declared) -> None:
    """Create the schedule, or make the one that is there as declared; the same again changes nothing."""
    try:
        await client.create_schedule(wanted.id, wanted.schedule(ScheduleState(note="declared by Paddock")))
        return
    except ScheduleAlreadyRunningError:
        pass

    async def as_declared(there: ScheduleUpdateInput) -> ScheduleUpdate | None:
        found = there.description.schedule
        schedule = wanted.schedule(found.state)
        return None if await _same(client, found, schedule, wanted) else ScheduleUpdate(schedule)

    await client.get_schedule_handle(wanted.id).update(as_declared)


async def _same(client: Client, found: Schedule, schedule: Schedule, wanted: Declared) -> bool:
    """Whether what is there says what is declared; the argument is compared as a model, however it was written."""
    action = found.action
    if not isinstance(action, ScheduleActionStartWorkflow):
        return False
    if (action.workflow, action.id, action.task_queue) != (wanted.workflow, wanted.id, names.CONTROL_QUEUE):
        return False
    if (found.spec, found.policy) != (schedule.spec, schedule.policy):
        return False
    try:
        arguments = await client.data_converter.decode(list(action.args), [type(wanted.argument)])
    except ValueError:
        return False
    return arguments == [wanted.argument]
