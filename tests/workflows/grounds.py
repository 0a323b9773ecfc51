"""A played cloud whose machines are host workers in this process: what it holds, and what it refuses, by script."""

import asyncio
import contextlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import (
    FixedSizeSlotSupplier,
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerTuner,
    WorkflowRunner,
)

from activities.environment import EnvironmentActivities
from activities.news import tell_sandboxes
from activities.place import PlaceActivities
from activities.pool import count_sandboxes, stop_sandboxes, view_pool
from paddock.contracts import names
from paddock.contracts.ground import Choice, HostReport, Proof, Wanted
from paddock.contracts.hosts import Boot, Booted, HostSpec
from paddock.contracts.pool import PoolMemory, PoolSize, PoolSpec, PoolStatus
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.host.config import HostConfig
from paddock.host.gate import Gate, PlacementSlots
from paddock.host.slots import Slots
from paddock.temporal.connect import connect
from providers.contract import HostOrder
from tests.workflows.conftest import World
from tests.workflows.played_cloud import PlayedCloud
from workflows.host import Host
from workflows.pool import HostPool
from workflows.sandbox import Sandbox

QUICK = timedelta(seconds=0.1)
SLOTS = 2  # of each machine
Box = WorkflowHandle[object, SandboxReport]
Pool = WorkflowHandle[object, PoolStatus]


class Ground:
    """One environment on a played cloud: the control and environment workers run, hosts come with their machines."""

    def __init__(self, client: Client) -> None:
        self.client, self.cloud, self.world = client, PlayedCloud(), World()
        self.environment = f"g-{uuid.uuid4().hex[:12]}"
        self.silent: set[str] = set()  # sizes whose machines never join
        self.unproved: set[str] = set()  # sizes whose hosts cannot boot a guest
        self.closed: set[str] = set()
        self.proofs: list[str] = []
        self.view: Callable[[str], Awaitable[object]] = view_pool
        self._loop = asyncio.get_running_loop()
        self._machines: dict[str, asyncio.Task[None]] = {}
        self.tables: dict[str, Slots] = {}  # by host
        self._folder = tempfile.TemporaryDirectory(prefix="paddock-ground-")
        self.cloud.on_boot = lambda order: self._soon(self._boot, order)
        self.cloud.on_end = lambda name: self._soon(self._end, name)

    def _soon(self, what: Callable[..., None], *given: object) -> None:
        self._loop.call_soon_threadsafe(what, *given)

    def _boot(self, order: HostOrder) -> None:
        if order.size not in self.silent | self.cloud.fails:
            self._machines[order.name] = asyncio.ensure_future(self._machine(order))

    def _end(self, name: str) -> None:
        if task := self._machines.pop(name, None):
            task.cancel()

    async def _machine(self, order: HostOrder) -> None:
        """A host's worker from its machine's boot to its end."""

        @activity.defn
        async def hold_host(spec: HostSpec) -> None:
            place.gate.open()
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)

        @activity.defn
        async def prove_host(spec: HostSpec) -> Proof:
            self.proofs.append(order.size)
            if order.size in self.unproved:
                raise ApplicationError("the guest did not boot", type="boot-failed", non_retryable=True)
            return Proof(parts_ms={"guest": 1.0})

        @activity.defn
        async def stop_placing(spec: HostSpec) -> int:
            self.closed.add(spec.host)
            return await place.stop_placing(spec)

        @activity.defn
        async def check_host(spec: HostSpec) -> int:
            return 0

        @activity.defn
        async def boot_sandbox(boot: Boot) -> Booted:
            table.confirm(boot.ref.sandbox_id, boot.ref.workflow_id, boot.caller_keys)
            return await world.boot_sandbox(boot)

        world, client = self.world, await connect(self.address)  # each its own: one client polls a queue once
        config = HostConfig(
            environment=self.environment, host=order.host, state=self._folder.name, cache="", temporal="",
            relay="ws://nowhere", policy_public_key="", slots=SLOTS,
        )  # fmt: skip
        table = self.tables[order.host] = Slots(Path(self._folder.name) / f"{order.name}.json", SLOTS)
        table.closed = True  # as the host's own worker begins: nothing is placed before the proof
        place = PlaceActivities(config, Gate(table), frozenset({"base"}))
        given: list[Callable[..., Awaitable[object]]] = [
            hold_host, prove_host, stop_placing, check_host,
            world.destroy_vm, world.revoke_credentials, world.seal_audit, place.release_slot,
        ]  # fmt: skip
        queues: dict[str, list[Callable[..., Awaitable[object]]]] = {
            names.host_control_queue(self.environment, order.host): given,
            names.host_queue(self.environment, order.host): [boot_sandbox, world.attach_policy, world.run_task],
        }
        async with contextlib.AsyncExitStack() as stack:
            for queue, activities in queues.items():
                await stack.enter_async_context(self._worker(queue, activities))
            await stack.enter_async_context(self._placing(client, place))
            await self.say_joined(order.host, order.attempt)
            await asyncio.Event().wait()

    def _placing(self, client: Client, place: PlaceActivities) -> Worker:
        """As a host's own worker does it: a poll for each slot that is free and not promised."""
        fixed = FixedSizeSlotSupplier(1)
        return Worker(
            client,
            task_queue=names.slots_queue(self.environment),
            activities=[place.reserve_slot],
            tuner=WorkerTuner.create_composite(
                workflow_supplier=fixed,
                activity_supplier=PlacementSlots(place.gate),
                local_activity_supplier=fixed,
                nexus_supplier=fixed,
            ),
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
            graceful_shutdown_timeout=timedelta(0),
        )

    @property
    def address(self) -> str:
        return self.client.service_client.config.target_host

    def _worker(self, queue: str, activities: Sequence[Callable[..., Awaitable[object]]]) -> Worker:
        return Worker(
            self.client,
            task_queue=queue,
            activities=activities,
            max_heartbeat_throttle_interval=QUICK,
            default_heartbeat_throttle_interval=QUICK,
            graceful_shutdown_timeout=timedelta(0),
        )

    async def say_joined(self, host: str, attempt: int) -> None:
        """What a host's worker says of itself when it starts."""
        spec = HostSpec(environment=self.environment, host=host, slots=SLOTS, attempt=attempt)
        await self.client.start_workflow(
            names.HOST,
            spec,
            id=names.host_workflow_id(self.environment, host),
            task_queue=names.CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="joined",
            start_signal_args=[spec],
        )

    def control(self, runner: WorkflowRunner | None = None) -> Worker:
        return Worker(
            self.client,
            task_queue=names.CONTROL_QUEUE,
            workflows=[Sandbox, Host, HostPool],
            activities=[self.world.resolve_policy, tell_sandboxes, self.view, count_sandboxes, stop_sandboxes],
            workflow_runner=runner or UnsandboxedWorkflowRunner(),  # shorter times reach the workflows
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            graceful_shutdown_timeout=timedelta(0),
        )

    @contextlib.asynccontextmanager
    async def up(self, *, control: bool = True, runner: WorkflowRunner | None = None) -> AsyncIterator["Ground"]:
        """Until the block ends; without `control` the caller runs the control worker itself."""
        ground = EnvironmentActivities(self.environment, self.cloud)
        environment = self._worker(
            names.ground_queue(self.environment),
            [ground.create_host, ground.watch_host, ground.terminate_host, ground.fence_host],
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                if control:
                    await stack.enter_async_context(self.control(runner))
                await stack.enter_async_context(environment)
                yield self
        finally:
            for task in self._machines.values():
                task.cancel()
            await asyncio.gather(*self._machines.values(), return_exceptions=True)
            await self._forget()
            self._folder.cleanup()

    async def _forget(self) -> None:
        """Nothing of this environment runs on when the next one's control worker is there."""
        query = f'{names.ENVIRONMENT}="{self.environment}" AND ExecutionStatus="Running"'
        async for one in self.client.list_workflows(query):
            with contextlib.suppress(RPCError):  # it ended meanwhile
                await self.client.get_workflow_handle(one.id).terminate()

    async def order(self, *sizes: str, host: str = "h-1", **more: object) -> WorkflowHandle[object, HostReport]:
        """Start a `Host` whose machine is wanted in one of these sizes, in this order."""
        choices = tuple(Choice(size=size, zone="zone-a") for size in sizes)
        wanted = Wanted(**({"choices": choices, "boot_s": 10, "prove_s": 10} | more))  # type: ignore[arg-type]
        return await self.client.start_workflow(
            names.HOST,
            HostSpec(environment=self.environment, host=host, slots=SLOTS, wanted=wanted),
            id=names.host_workflow_id(self.environment, host),
            task_queue=names.CONTROL_QUEUE,
            result_type=HostReport,
        )

    async def until(self, handle: WorkflowHandle[object, object], *states: str, within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while (said := await handle.query("status")) not in states:
                del said
                await asyncio.sleep(0.05)

    def kill(self, host: str) -> None:
        """A machine's workers die, and the machine goes on being billed."""
        for item in self.cloud.held.values():
            if item.host == host and item.kind == "host":
                self._end(item.name)

    async def pool(self, *sizes: str, memory: PoolMemory | None = None, **more: object) -> Pool:
        """Start the environment's `HostPool`; what names a field of `PoolSize` is one, else it is the spec's."""
        size = PoolSize.model_validate({name: value for name, value in more.items() if name in PoolSize.model_fields})
        given = {name: value for name, value in more.items() if name not in PoolSize.model_fields}
        spec = PoolSpec(
            environment=self.environment,
            choices=tuple(Choice(size=one, zone="zone-a") for one in sizes),
            slots=SLOTS,
            size=size,
            memory=memory or PoolMemory(),
            **({"look_s": 0.5, "boot_s": 10, "prove_s": 10} | given),  # type: ignore[arg-type]
        )
        return await self.client.start_workflow(
            names.HOST_POOL,
            spec,
            id=names.pool_workflow_id(self.environment),
            task_queue=names.CONTROL_QUEUE,
            result_type=PoolStatus,
        )

    async def sandbox(self, **more: object) -> Box:
        """Start a `Sandbox` here that waits for a slot, and lives until it is stopped."""
        spec = SandboxSpec(environment=self.environment, **({"place_timeout_s": 60} | more))  # type: ignore[arg-type]
        return await self.client.start_workflow(
            names.SANDBOX,
            spec,
            id=f"box-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
            result_type=SandboxReport,
        )

    def machines(self) -> list[str]:
        """Hosts whose machine is billed now."""
        return sorted(item.host for item in self.cloud.held.values() if item.kind == "host")
