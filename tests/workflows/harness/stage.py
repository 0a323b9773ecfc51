"""One server, one pair of shared workers, and sandboxes that run on them side by side, each with its own world."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from paddock.contracts import names
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import OutputGlob, SandboxSpec, TaskSpec
from paddock.temporal.connect import connect
from tests.workflows.harness.activities import POLL_S
from tests.workflows.harness.invariants import Ended
from tests.workflows.harness.plan import REAL, Plan
from tests.workflows.harness.processes import Process, Workers, alive
from tests.workflows.harness.world import OVER, Fault, World

SHARED = "shared"
COUNT = itertools.count(1)
LONGEST_S = 100.0
ACCEPTED = WorkflowUpdateStage.ACCEPTED
TASK = TaskSpec(argv=("true",))


@dataclass
class Run:
    """One sandbox under test, its world, and the worker processes that are its own."""

    stage: "Stage"
    name: str
    plan: Plan
    control_queue: str
    environment: str
    options: dict[str, Any]
    world: World = field(init=False)
    handle: WorkflowHandle[Any, SandboxReport] = field(init=False)
    control: Process | None = None
    host: Process | None = None
    stops: list["asyncio.Task[SandboxReport]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.stage.workers.worlds, self.name)

    def start_control(self) -> None:
        self.control = self.stage.workers.start("control", self.control_queue, plan=self.plan.name, **self.options)

    def start_host(self) -> None:
        self.host = self.stage.workers.start("host", self.environment, plan=self.plan.name)

    async def start(self, **spec: Any) -> None:
        spec = {"task": TASK, "outputs": (OutputGlob(glob="*"),), "environment": self.environment, **spec}
        self.handle = await self.stage.client.start_workflow(
            names.SANDBOX,
            SandboxSpec(**spec),
            id=self.name,
            task_queue=self.control_queue,
            result_type=SandboxReport,
        )

    async def inside(self, move: str) -> None:
        """Start it, and wait until it is held at this move."""
        await self.start()
        await self.until_said("inside", move)

    def release(self, move: object) -> None:
        self.world.note("released", move)

    async def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(POLL_S)

    async def until_said(self, what: str, move: object) -> None:
        await self.until(lambda: self.world.said(what, move))

    async def until_undoing(self) -> None:
        await self.until(lambda: any(line.what == "begun" and line.move[:5] == "undo_" for line in self.world.lines()))

    async def until_server_knows(self) -> None:
        """Until the activity's answer is in the history."""
        async with asyncio.timeout(30):
            while (await self.handle.describe()).raw_description.pending_activities:
                await asyncio.sleep(POLL_S)

    async def cancel(self) -> None:
        with contextlib.suppress(RPCError):  # it ended meanwhile, or was told before
            await self.handle.cancel()

    async def stop(self) -> None:
        """Returns when the workflow took it; its answer comes at the end."""
        taken = await self.handle.start_update(
            "stop", "enough", wait_for_stage=ACCEPTED, result_type=SandboxReport
        )  # fmt: skip
        self.stops.append(asyncio.ensure_future(taken.result()))

    def stop_soon(self) -> None:
        """Sent while nobody is there to take it."""
        self.stops.append(
            asyncio.ensure_future(self.handle.execute_update("stop", "enough", result_type=SandboxReport))
        )

    async def until_ended(self) -> Ended:
        """The end, once every attempt that still lives is over too."""
        status, report = "COMPLETED", None
        try:
            report = await self.handle.result()
        except WorkflowFailureError as failure:
            status = "FAILED"
            if isinstance(failure.cause, ApplicationError):
                report = SandboxReport.model_validate(failure.cause.details[0])
            else:
                status = type(failure.cause).__name__
        stops = await asyncio.wait_for(asyncio.gather(*self.stops, return_exceptions=True), 20)
        await self.until(self._quiet, 20)
        history = await self.handle.fetch_history()
        events = tuple(EventType.Name(event.event_type) for event in history.events)
        return Ended(self.plan, self.world.lines(), status, report, events, tuple(stops))

    def _quiet(self) -> bool:
        lines = self.world.lines()
        over = {(line.move, line.id, line.attempt) for line in lines if line.what in OVER}
        begun = [line for line in lines if line.what == "begun" and alive(line.pid)]
        return all((line.move, line.id, line.attempt) in over for line in begun)


class Stage:
    """Starts runs; what they share is started when the first of them needs it."""

    def __init__(self, client: Client, workers: Workers) -> None:
        self.client, self.workers = client, workers

    @contextlib.asynccontextmanager
    async def run(
        self,
        name: str,
        *,
        plan: Plan = REAL,
        faults: dict[object, Fault] | None = None,
        own_control: bool = False,
        own_host: bool = False,
        **options: Any,
    ) -> AsyncIterator[Run]:
        """A sandbox that is not started yet, with workers; its own ones are killed at the end."""
        count = next(COUNT)
        name = f"{name}-{plan.name}-{count}"
        shared = f"{SHARED}-{plan.name}-{self.workers.number}"  # a poll of dead workers takes none of its tasks
        own = f"own-{count}"
        run = Run(
            self, name, plan, own if own_control or options else shared, own if own_host else shared, options
        )  # fmt: skip
        for move, fault in (faults or {}).items():
            run.world.plan(move, fault)
        for role, place, start in (
            ("control", run.control_queue, run.start_control),
            ("host", run.environment, run.start_host),
        ):
            if place == shared and (role, place) in self.workers.shared:
                continue
            start()
            if place == shared:
                self.workers.shared.add((role, place))
        mine = (own_control or bool(options), own_host)
        try:
            async with asyncio.timeout(LONGEST_S):
                yield run
        finally:
            for stop in run.stops:
                stop.cancel()
            for process, is_mine in zip((run.control, run.host), mine, strict=True):
                if process and is_mine:
                    await process.end()


@contextlib.asynccontextmanager
async def stage(address: str, directory: Path) -> AsyncIterator[Stage]:
    """A stage on a running server; every process of it ends with it."""
    workers = Workers(address, directory)
    try:
        yield Stage(await connect(address), workers)
    finally:
        workers.close()
