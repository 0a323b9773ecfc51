"""A host that is back: it ends what is over by the server's word on that very run, and nothing else that it holds."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker

from activities.ground import HostActivities
from paddock.contracts.hosts import HostSpec, SandboxRef
from paddock.contracts.ids import sandbox_id
from paddock.host.messages import Held
from tests.workflows.conftest import client, temporal
from tests.workflows.fleet import Elsewhere

__all__ = ["client", "temporal"]

Handle = WorkflowHandle[Any, Any]
Status = WorkflowExecutionStatus


@dataclass
class Back:
    """A host that is back, with what its keeper says it holds, and every undo that it did, in order."""

    client: Client
    queue: str
    held: list[Held] = field(default_factory=list)
    undone: list[tuple[str, str]] = field(default_factory=list)

    async def workflow(self, name: str = "") -> Handle:
        return await self.client.start_workflow("Elsewhere", 0, id=name or f"box-{uuid.uuid4()}", task_queue=self.queue)

    def latest(self, one: Handle) -> Handle:
        return self.client.get_workflow_handle(one.id)

    async def run_of(self, one: Handle) -> WorkflowExecutionDescription:
        """The run that the sandbox was started with, as the server has it now."""
        return await self.client.get_workflow_handle(one.id, run_id=one.first_execution_run_id).describe()

    def holds(self, workflow_id: str, run_id: str, protected: bool = False) -> str:
        name = sandbox_id(workflow_id, run_id)
        ref = SandboxRef(sandbox_id=name, workflow_id=workflow_id, run_id=run_id, environment="e", host="far-1")
        self.held.append(Held(ref=ref, alive=True, lease_end=datetime.now(UTC), protected=protected))
        return name

    def holds_of(self, one: Handle, protected: bool = False) -> str:
        return self.holds(one.id, one.first_execution_run_id or "", protected)

    async def inventory(self) -> tuple[Held, ...]:
        return tuple(self.held)

    async def _vm(self, ref: SandboxRef) -> None:
        self.undone.append(("vm", ref.sandbox_id))

    async def _slot(self, ref: SandboxRef) -> None:
        self.undone.append(("slot", ref.sandbox_id))

    async def check(self) -> int:
        host = HostActivities(self.inventory, (self._vm, self._slot))
        spec = HostSpec(environment="e", host="far-1")
        ended: int = await ActivityEnvironment(client=self.client).run(host.check_host, spec)
        return ended

    async def go_on(self, one: Handle) -> None:
        """As another run of the same chain."""
        before = (await self.latest(one).describe()).run_id
        await self.latest(one).signal("again")
        await self._another_than(one, before)

    async def reset(self, one: Handle) -> None:
        """As an operator does it: the run is closed, and another one begins from its first workflow task."""
        async with asyncio.timeout(20):
            while not (finished := await _first_task(self.latest(one))):
                await asyncio.sleep(0.05)
        before = (await self.latest(one).describe()).run_id
        request = ResetWorkflowExecutionRequest(
            namespace=self.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=one.id, run_id=before),
            reason="a test",
            request_id=str(uuid.uuid4()),
            workflow_task_finish_event_id=finished,
        )
        await self.client.workflow_service.reset_workflow_execution(request)
        await self._another_than(one, before)

    async def _another_than(self, one: Handle, before: str) -> None:
        async with asyncio.timeout(20):
            while (found := await self.latest(one).describe()).run_id == before:
                await asyncio.sleep(0.05)
        assert found.status is Status.RUNNING


async def _first_task(one: Handle) -> int:
    """The event that closed its first workflow task; 0 when none did yet."""
    events = (await one.fetch_history()).events
    return next((event.event_id for event in events if event.HasField("workflow_task_completed_event_attributes")), 0)


@pytest.fixture
async def back(client: Client) -> AsyncIterator[Back]:
    queue = f"elsewhere-{uuid.uuid4()}"
    async with Worker(client, task_queue=queue, workflows=[Elsewhere]):
        yield Back(client, queue)


async def test_one_that_the_server_calls_over_is_ended_by_every_undo_in_their_order(back: Back) -> None:
    over, runs = await back.workflow(), await back.workflow()
    await over.terminate()
    name, _ = back.holds_of(over), back.holds_of(runs)
    assert await back.check() == 1
    assert back.undone == [("vm", name), ("slot", name)]
    await runs.terminate()


async def test_one_that_goes_on_as_another_run_is_the_same_sandbox(back: Back) -> None:
    box = await back.workflow()
    back.holds_of(box)
    for _ in range(2):
        await back.go_on(box)
    assert (await back.run_of(box)).status is Status.CONTINUED_AS_NEW
    assert await back.check() == 0
    assert back.undone == []
    await back.latest(box).terminate()
    assert await back.check() == 1, "the last run of its chain is over"


async def test_one_that_was_reset_is_the_same_sandbox(back: Back) -> None:
    box = await back.workflow()
    back.holds_of(box)
    await back.reset(box)
    assert (await back.run_of(box)).status is Status.TERMINATED
    assert await back.check() == 0
    assert back.undone == []
    await back.latest(box).terminate()
    assert await back.check() == 1, "the run that it was reset to is over"


async def test_one_that_went_on_and_was_reset_then_is_the_same_sandbox(back: Back) -> None:
    box = await back.workflow()
    back.holds_of(box)
    await back.go_on(box)
    await back.reset(box)
    assert await back.check() == 0
    assert back.undone == []
    await back.latest(box).terminate()


@pytest.mark.parametrize("went_on", [False, True])
async def test_a_newer_sandbox_of_its_name_does_not_keep_it(back: Back, went_on: bool) -> None:
    older = await back.workflow()
    if went_on:
        await back.go_on(older)
    await back.latest(older).terminate()
    newer = await back.workflow(older.id)
    name, _ = back.holds_of(older), back.holds_of(newer)
    assert await back.check() == 1
    assert {sandbox for _, sandbox in back.undone} == {name}
    await newer.terminate()


async def test_one_that_the_server_does_not_know_is_left_to_the_sweep(back: Back) -> None:
    known = await back.workflow()
    back.holds("never-heard-of", str(uuid.uuid4()))
    back.holds(known.id, str(uuid.uuid4()))  # a run that its history's retention removed
    assert await back.check() == 0
    assert back.undone == []
    await known.terminate()


async def test_a_protected_one_is_left_although_it_is_over(back: Back) -> None:
    box = await back.workflow()
    await box.terminate()
    back.holds_of(box, protected=True)
    assert await back.check() == 0
    assert back.undone == []


async def test_a_question_that_the_server_refuses_is_an_error_and_no_verdict(back: Back) -> None:
    box = await back.workflow()
    await box.terminate()
    back.holds(box.id, "not a run's id")
    with pytest.raises(RPCError):
        await back.check()
    assert back.undone == []
