"""Where a scenario is played: starting a workflow under a script, speaking to it, and what scenarios there are."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from temporalio.client import (
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)

from paddock.contracts import names
from paddock.contracts.spec import SandboxSpec, TaskSpec
from tests.replay.history import workflow_id
from tests.replay.world import ENVIRONMENT, Script, World

WITHIN_S: Final = 60.0
AT_ONCE: Final = 6
TASK: Final = TaskSpec(argv=("true",))
KEY: Final = "A" * 43 + "="
ACCEPTED: Final = WorkflowUpdateStage.ACCEPTED
Handle = WorkflowHandle[Any, Any]
Play = Callable[["Stage"], Awaitable[Handle]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way through a workflow; `slow` ones wait for time-outs of half a minute and more."""

    name: str
    play: Play
    slow: bool = False
    live: bool = True  # the longest one is recorded and replayed, and not played again


SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(workflow: str, name: str, *, slow: bool = False, live: bool = True) -> Callable[[Play], Play]:
    """Register the function as this workflow's scenario of this name."""

    def register(play: Play) -> Play:
        full = f"{workflow}/{name}"
        assert full not in SCENARIOS, f"two scenarios are called {full}"
        SCENARIOS[full] = Scenario(full, play, slow, live)
        return play

    return register


@dataclass(frozen=True, slots=True)
class Stage:
    """One scenario's own workflow id and script in the shared world."""

    world: World
    id: str
    script: Script

    async def start(self, workflow: str, *arguments: object, **more: Any) -> Handle:
        return await self.world.client.start_workflow(
            workflow, args=arguments, id=self.id, task_queue=names.CONTROL_QUEUE, **more
        )

    async def sandbox(self, task: TaskSpec | None = None, **fields: Any) -> Handle:
        fields = {"environment": ENVIRONMENT, "task": task, **fields}
        return await self.start(names.SANDBOX, SandboxSpec(**fields))

    async def entered(self, name: str) -> None:
        """Until this activity is under way."""
        await asyncio.wait_for(self.script.has_entered(name).wait(), WITHIN_S)
        self.script.has_entered(name).clear()

    async def until(self, handle: Handle, state: str) -> Any:
        """Until the workflow's status is this one; the answer is that status."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                said = await handle.query("status")
                if state in (said, said.get("state") if isinstance(said, dict) else ""):
                    return said
                await asyncio.sleep(0.05)

    async def handled(self, handle: Handle, activity: str) -> None:
        """Until the workflow has taken this activity's answer, in a task of its own."""
        async with asyncio.timeout(WITHIN_S):
            while not await self._taken(handle, activity):
                await asyncio.sleep(0.05)

    async def _taken(self, handle: Handle, activity: str) -> bool:
        scheduled, answered = 0, False
        for event in (await handle.fetch_history()).events:
            if event.activity_task_scheduled_event_attributes.activity_type.name == activity:
                scheduled = event.event_id
            done = event.activity_task_completed_event_attributes.scheduled_event_id
            answered = answered or bool(scheduled and done == scheduled)
            if answered and event.HasField("workflow_task_completed_event_attributes"):
                return True
        return False

    async def ready(self, **fields: Any) -> Handle:
        """A session that waits for its first task."""
        handle = await self.sandbox(**fields)
        await self.until(handle, "ready")
        return handle

    async def run(self, handle: Handle, waited: bool = True) -> None:
        """One task of a session from `run` to its end; `waited`: with a caller who asks for its end meanwhile."""
        self.script.hold.add("run_task")
        self.script.released.pop("run_task", None)
        number = await handle.execute_update("run", TASK, result_type=int)
        await self.entered("run_task")
        waiting = await handle.start_update("wait", number, wait_for_stage=ACCEPTED) if waited else None
        self.script.release("run_task")
        if waiting:  # its answer comes with the state `ready`
            await waiting.result()
        else:
            await self.until(handle, "ready")

    async def over(self, handle: Handle) -> Handle:
        """Wait for the end, however it ends."""
        try:
            await asyncio.wait_for(handle.result(), 3 * WITHIN_S)
        except WorkflowFailureError:
            pass
        return handle


async def refused(asked: Awaitable[object]) -> None:
    """An update that is accepted and fails."""
    try:
        await asked
    except WorkflowUpdateFailedError:
        return
    raise AssertionError("this update was to fail")


async def play(world: World, one: Scenario) -> WorkflowHistory:
    """Play a scenario to its end and answer its history; of one that went on as a new run, its longest."""
    stage = Stage(world, workflow_id(one.name), Script())
    world.scripts[stage.id] = stage.script
    handle = await one.play(stage)
    history = longest = await handle.fetch_history()
    while before := history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id:
        history = await world.client.get_workflow_handle(handle.id, run_id=before).fetch_history()
        longest = max(history, longest, key=lambda one: len(one.events))
    return longest


async def play_all(world: World, chosen: list[Scenario]) -> dict[str, WorkflowHistory]:
    """Play scenarios, some at the same time. Raises with every one that did not come to its end, by name."""
    turns = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []
    found: dict[str, WorkflowHistory] = {}

    async def one_of(one: Scenario) -> None:
        async with nullcontext() if one.slow else turns:  # a slow one only waits
            try:
                found[one.name] = await play(world, one)
            except Exception as failure:
                wrong.append(f"{one.name}: {type(failure).__name__}: {failure}")

    await asyncio.gather(*(one_of(one) for one in chosen))
    if wrong:
        raise AssertionError("these scenarios did not come to their end:\n  " + "\n  ".join(wrong))
    return {one.name: found[one.name] for one in chosen}
