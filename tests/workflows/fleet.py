"""An environment with a played host around the real `FleetCleanup`: its inventory is what a test says."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue
from temporalio.worker import Worker

from activities import fleet as activities
from paddock.contracts import fleet, ground, hosts, names
from paddock.contracts.fleet import CleanupReport, CleanupSpec, Found, Hold, HostInventory, Left
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone, Receipt
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Status
from tests.workflows.conftest import World
from workflows.cleanup import FleetCleanup
from workflows.sandbox import Sandbox
from workflows.steps import BEFORE_THE_TASK

OLD = 3600.0
EVERY_RECEIPT = {what for step in BEFORE_THE_TASK for what in step.receipts}
ORDER = ["revoke_credentials", "destroy_vm", "seal_audit", "release_slot"]


@workflow.defn(name="Elsewhere", sandboxed=False)
class Elsewhere:
    """A workflow that is not listed as a sandbox's: told `again`, it goes on as another run of the same chain."""

    def __init__(self) -> None:
        self.go_on = False

    @workflow.run
    async def run(self, number: int = 0) -> None:
        await workflow.wait_condition(lambda: self.go_on)
        workflow.continue_as_new(number + 1)

    @workflow.signal
    def again(self) -> None:
        self.go_on = True


@dataclass
class Site:
    """One environment with one host: its undos are the World's, its inventory is what the test says."""

    client: Client
    world: World = field(default_factory=World)
    environment: str = field(default_factory=lambda: f"e-{uuid.uuid4().hex[:12]}")
    host: str = "far-1"
    found: list[Found] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    looks: int = 0
    forgotten: list[str] = field(default_factory=list)
    undone: list[tuple[str, str]] = field(default_factory=list)
    hang: set[str] = field(default_factory=set)
    unproved: set[str] = field(default_factory=set)
    babble: set[str] = field(default_factory=set)
    before_look: Callable[[int], None] = lambda _: None
    complete: bool = True
    garbage: Any = ""
    mute: bool = False
    name: str = ""

    def undo(self, name: str, ref: hosts.SandboxRef) -> hosts.Undone:
        self.undone.append((name, ref.sandbox_id))
        if ref.sandbox_id in self.babble:
            return {"receipts": "gone, I swear"}  # type: ignore[return-value]
        gone = Gone.UNPROVED if ref.sandbox_id in self.unproved else Gone.PROVED
        [step] = [step for step in BEFORE_THE_TASK if step.undo and step.undo.activity == name]
        return hosts.Undone(
            receipts=tuple(
                Receipt(resource=what, id=ref.sandbox_id, gone=gone, checked_by="looked", at=datetime.now(UTC))
                for what in step.receipts
            )
        )

    @activity.defn
    async def list_ground(self, controller: str) -> ground.GroundInventory:
        return ground.GroundInventory(environment=self.environment, provider="played", complete=self.complete)

    @activity.defn
    async def host_inventory(self, environment: str) -> HostInventory:
        self.looks += 1
        self.before_look(self.looks)
        if isinstance(self.garbage, RawValue):
            return self.garbage  # type: ignore[return-value]
        if self.garbage:
            return {"environment": environment, "host": self.host, "found": self.garbage}  # type: ignore[return-value]
        return HostInventory(
            environment=environment,
            host=self.name or self.host,
            found=tuple(self.found),
            left=tuple(self.left),
            missing=self.missing,
        )

    @activity.defn
    async def forget_leftovers(self, ask: fleet.Forget) -> hosts.Undone:
        self.forgotten += ask.sandboxes
        receipts = tuple(
            Receipt(resource="output", id=name, gone=Gone.PROVED, checked_by="looked", at=datetime.now(UTC))
            for name in ask.sandboxes
        )
        return hosts.Undone(receipts=receipts)

    @activity.defn
    async def destroy_vm(self, ref: hosts.SandboxRef) -> hosts.Undone:
        while ref.sandbox_id in self.hang:
            activity.heartbeat()
            await asyncio.sleep(0.05)
        self.found = [one for one in self.found if one.sandbox_id != ref.sandbox_id]
        return self.undo("destroy_vm", ref)

    @activity.defn
    async def revoke_credentials(self, ref: hosts.SandboxRef) -> hosts.Undone:
        while self.mute:
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return self.undo("revoke_credentials", ref)

    @activity.defn
    async def release_slot(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self.undo("release_slot", ref)

    @activity.defn
    async def seal_audit(self, ref: hosts.SandboxRef) -> hosts.Sealed:
        self.undone.append(("seal_audit", ref.sandbox_id))
        return await self.world.seal_audit(ref)

    async def sandbox(self, name: str = "", host: str = "") -> WorkflowHandle[Any, Any]:
        """A sandbox that is ready, on `host` by what its workflow says."""
        self.world.host = host or self.host
        handle = await self.client.start_workflow(
            names.SANDBOX,
            SandboxSpec(environment=self.environment),
            id=name or f"box-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
        )
        async with asyncio.timeout(20):
            while (await handle.query("status", result_type=Status)).state != "ready":
                await asyncio.sleep(0.02)
        return handle

    def holds(self, handle: WorkflowHandle[Any, Any], **change: Any) -> str:
        """The host holds this workflow's sandbox, for long enough; answers its id."""
        run = handle.first_execution_run_id or ""
        made: dict[str, Any] = {
            "sandbox_id": sandbox_id(handle.id, run),
            "workflow_id": handle.id,
            "run_id": run,
            "age_s": OLD,
            "holds": (Hold.RECORD, Hold.PROCESSES, Hold.SLOT),
        }
        one = Found(**{**made, **change})
        self.found.append(one)
        return one.sandbox_id

    async def start(self, **fields: Any) -> WorkflowHandle[Any, CleanupReport]:
        given = {"environment": self.environment, "grace_s": 1, "between_s": 1, "host_s": 2, **fields}
        return await self.client.start_workflow(
            names.FLEET_CLEANUP,
            CleanupSpec(**given),
            id=f"sweep-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
            result_type=CleanupReport,
        )

    async def sweep(self, **fields: Any) -> CleanupReport:
        return await asyncio.wait_for((await self.start(**fields)).result(), 60)

    async def listed(self, *open_: str) -> None:
        """Wait until Temporal's index knows exactly these sandboxes as open."""
        query = (
            f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running" AND {names.ENVIRONMENT}="{self.environment}"'
        )
        async with asyncio.timeout(20):
            while {found.id async for found in self.client.list_workflows(query)} != {*open_}:
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(client: Client) -> AsyncIterator[Site]:
    here = Site(client)
    quick: dict[str, Any] = {
        "max_heartbeat_throttle_interval": timedelta(seconds=0.1),
        "default_heartbeat_throttle_interval": timedelta(seconds=0.1),
        "graceful_shutdown_timeout": timedelta(0),
    }
    world, environment, host = here.world, here.environment, here.host
    async with AsyncExitStack() as stack:
        for queue, workflows, work in (
            (
                names.CONTROL_QUEUE,
                [Sandbox, FleetCleanup, Elsewhere],
                [world.resolve_policy, *activities.ON_CONTROL],
            ),
            (names.ground_queue(environment), [], [here.list_ground]),
            (names.slots_queue(environment), [], [world.reserve_slot]),
            *(
                (names.host_queue(environment, name), [], [world.boot_sandbox, world.attach_policy])
                for name in (host, "gone-1")
            ),
            (
                names.host_control_queue(environment, host),
                [],
                [
                    here.host_inventory,
                    here.forget_leftovers,
                    here.destroy_vm,
                    here.revoke_credentials,
                    here.release_slot,
                    here.seal_audit,
                ],
            ),
        ):
            made = Worker(client, task_queue=queue, workflows=workflows, activities=work, **quick)  # type: ignore[arg-type]
            await stack.enter_async_context(made)
        # The host's entity, only as something that is open: what it does has its own tests.
        entity = await client.start_workflow(
            names.HOST, id=names.host_workflow_id(environment, host), task_queue="nobody", args=[]
        )
        async with asyncio.timeout(20):
            while not (await open_hosts(client, environment)):
                await asyncio.sleep(0.05)
        yield here
        await entity.terminate()


async def running(client: Client, kind: str, environment: str) -> list[str]:
    """Workflow ids as Temporal's index knows them."""
    query = f'WorkflowType="{kind}" AND ExecutionStatus="Running" AND {names.ENVIRONMENT}="{environment}"'
    return [found.id async for found in client.list_workflows(query)]


async def open_hosts(client: Client, environment: str) -> list[str]:
    prefix = names.host_workflow_id(environment, "")
    query = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{prefix}"'
    return [found.id async for found in client.list_workflows(query)]
