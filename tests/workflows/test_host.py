"""`Host` on a real server: who does not answer is noticed, fenced where somebody can, and its sandboxes are told."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.environment import EnvironmentActivities
from activities.ground import HostActivities
from activities.news import tell_sandboxes
from paddock.contracts import hosts, names
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone, Outcome, SandboxReport
from paddock.contracts.spec import SandboxSpec, TaskSpec
from paddock.contracts.status import State, Status
from paddock.host.messages import Held
from providers.contract import ErrorClass, HostOrder, HostSize, HostState, Inventory, Item, ProviderError
from providers.joined import Joined
from tests.workflows.conftest import World
from tests.workflows.test_sandbox import report_of
from workflows import host as host_module
from workflows import sandbox as sandbox_module
from workflows.host import Host
from workflows.sandbox import Sandbox

TASK = TaskSpec(argv=("true",))


@dataclass
class Machines:
    """A provider with one machine, whose end takes a look or two; `blind` looks at first see only a part."""

    name: str = "played"
    held: list[Item] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    refuse: int = 0
    blind: int = 0

    def create(self, order: HostOrder) -> Item:
        raise AssertionError("a host that is lost is not made or sought by its order")

    def get(self, order: HostOrder) -> Item | None:
        raise AssertionError("a host that is lost is not made or sought by its order")

    def list_owned(self, controller: str) -> Inventory:
        if self.blind:
            self.blind -= 1
            return Inventory(items=(), complete=False, missing_scopes=("zone-b",))
        found, self.held = tuple(self.held), [one for one in self.held if one.id not in self.ended]
        return Inventory(items=found, complete=True)

    def terminate(self, item: Item) -> HostState:
        if self.refuse:
            self.refuse -= 1
            raise ProviderError(ErrorClass.THROTTLED, "slower, please")
        self.ended.append(item.id)
        return HostState.DELETING

    def catalogue(self) -> Sequence[HostSize]:
        return ()


class Site:
    """One environment with one host: its workers come and go, Temporal and the control worker stay."""

    def __init__(self, client: Client, provider: object) -> None:
        self.client, self.world = client, World()
        self.environment, self.host = f"e-{uuid.uuid4().hex[:12]}", "far-1"
        self.spec = hosts.HostSpec(environment=self.environment, host=self.host, slots=2)
        self.ground = EnvironmentActivities(self.environment, provider)  # type: ignore[arg-type]
        self.world.host = self.host
        self.held: list[Held] = []
        self.undone: list[str] = []

    async def inventory(self) -> tuple[Held, ...]:
        return tuple(self.held)

    async def undo(self, ref: hosts.SandboxRef) -> None:
        self.undone.append(ref.workflow_id)

    def holds(self, workflow_id: str, run_id: str, protected: bool = False) -> None:
        ref = hosts.SandboxRef(
            sandbox_id=sandbox_id(workflow_id, run_id),
            workflow_id=workflow_id,
            run_id=run_id,
            environment=self.environment,
        )
        self.held.append(Held(ref=ref, alive=True, lease_end=datetime.now(UTC), protected=protected))

    @asynccontextmanager
    async def control(self) -> AsyncIterator[None]:
        async with self.workflows(), self.environment_worker():
            yield

    def workflows(self) -> Worker:
        return Worker(
            self.client,
            task_queue=names.CONTROL_QUEUE,
            workflows=[Sandbox, Host],
            activities=[self.world.resolve_policy, tell_sandboxes],
            workflow_runner=UnsandboxedWorkflowRunner(),  # the shorter times below reach the workflows
        )

    def environment_worker(self) -> Worker:
        return Worker(self.client, task_queue=names.ground_queue(self.environment), activities=[self.ground.fence_host])

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """The host's own worker."""
        world, here = self.world, HostActivities(self.inventory, (self.undo,))
        quick = timedelta(seconds=0.1)
        async with AsyncExitStack() as stack:
            for queue, activities in (
                (names.slots_queue(self.environment), [world.reserve_slot]),
                (
                    names.host_queue(self.environment, self.host),
                    [world.boot_sandbox, world.attach_policy, world.run_task],
                ),
                (
                    names.host_control_queue(self.environment, self.host),
                    [
                        world.destroy_vm,
                        world.revoke_credentials,
                        world.seal_audit,
                        world.release_slot,
                        here.hold_host,
                        here.check_host,
                    ],
                ),
            ):
                given: list[Callable[..., Awaitable[object]]] = activities  # type: ignore[assignment]
                worker = Worker(
                    self.client,
                    task_queue=queue,
                    activities=given,
                    max_heartbeat_throttle_interval=quick,
                    default_heartbeat_throttle_interval=quick,
                    graceful_shutdown_timeout=timedelta(0),
                )
                await stack.enter_async_context(worker)
            yield

    async def join(self) -> WorkflowHandle[object, object]:
        return await self.client.start_workflow(
            names.HOST,
            self.spec,
            id=names.host_workflow_id(self.environment, self.host),
            task_queue=names.CONTROL_QUEUE,
            start_signal="joined",
            start_signal_args=[self.spec],
        )

    async def sandbox(self, lifetime_s: int = 3600) -> WorkflowHandle[object, SandboxReport]:
        handle = await self.client.start_workflow(
            names.SANDBOX,
            SandboxSpec(environment=self.environment, lifetime_s=lifetime_s),
            id=f"any-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
            result_type=SandboxReport,
        )
        await self.until(handle, State.READY)
        return handle

    async def until(self, handle: WorkflowHandle[object, object], state: str, within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while state not in (
                (said := await handle.query("status")),
                said["state"] if isinstance(said, dict) else "",
            ):
                await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps in less time; the real ones are proved in tests/e2e/test_host_lost.py."""
    monkeypatch.setattr(host_module, "HEARTBEAT", timedelta(seconds=2))
    monkeypatch.setattr(host_module, "NEW_WORKER", timedelta(seconds=2))
    monkeypatch.setattr(sandbox_module, "AFTER_EVERY_DEADLINE_S", -20)  # no lease is shorter than 30 s


@pytest.fixture
async def joined(client: Client) -> AsyncIterator[Site]:
    site = Site(client, Joined())
    async with site.control():
        yield site


async def test_a_host_that_does_not_answer_keeps_its_sandboxes_ending_until_it_answers(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        box = await joined.sandbox()
    await joined.until(host, "unreachable")
    await joined.until(box, State.ENDING)
    status = await box.query("status", result_type=Status)
    assert "has not answered" in status.finding
    assert joined.world.held == {"slot", "vm", "credential"}
    async with joined.up():
        report = await report_of(box)
        await joined.until(host, "ready")
    assert report.outcome is Outcome.HOST_LOST
    assert report.error
    assert report.error.kind == "host-lost"
    assert {receipt.gone for receipt in report.receipts} == {Gone.PROVED}
    assert joined.world.held == set()


async def test_without_a_provider_its_deadlines_are_waited_for(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        box = await joined.sandbox(lifetime_s=30)
    report = await asyncio.wait_for(report_of(box), 60)
    assert report.outcome is Outcome.HOST_LOST
    assert {receipt.gone for receipt in report.receipts} == {Gone.IMPLIED_BY_HOST}
    assert {receipt.resource for receipt in report.receipts} >= {"vm", "supervisor", "slot", "credential"}
    assert all("every deadline" in receipt.checked_by for receipt in report.receipts)
    assert await host.query("status") == "unreachable"


async def test_a_host_that_dies_while_a_sandbox_ends_is_called_lost(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        box = await joined.sandbox(lifetime_s=30)
        joined.world.unproved = 10_000
        stopping = asyncio.ensure_future(box.execute_update("stop", "enough", result_type=SandboxReport))
        await joined.until(box, State.ENDING)
        await asyncio.sleep(0.5)  # some undo has answered that it cannot prove its resource gone
        assert "looked" in (await box.query("status", result_type=Status)).finding
    report = await asyncio.wait_for(stopping, 60)
    assert report.outcome is Outcome.HOST_LOST
    assert {receipt.gone for receipt in report.receipts} == {Gone.IMPLIED_BY_HOST}


async def test_an_extension_that_the_host_may_have_taken_counts_as_a_deadline(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        box = await joined.sandbox(lifetime_s=30)
    extending = asyncio.ensure_future(box.execute_update("extend", 3600))
    await joined.until(host, "unreachable")
    await joined.until(box, State.ENDING)
    await asyncio.sleep(10)
    assert (await box.query("status", result_type=Status)).state is State.ENDING
    async with joined.up():
        assert (await report_of(box)).outcome is Outcome.HOST_LOST
        await asyncio.gather(extending, return_exceptions=True)


@pytest.mark.parametrize(("refuse", "blind"), [(0, 0), (1, 1)])
async def test_a_lost_host_is_ended_by_its_provider_and_implies_what_it_held(
    client: Client, refuse: int, blind: int
) -> None:
    machine = Item(id="i-1", kind="host", name="ph-1", state=HostState.RUNNING, host="far-1")
    other = Item(id="i-2", kind="host", name="ph-2", state=HostState.RUNNING, host="far-2")
    machines = Machines(held=[machine, other], refuse=refuse, blind=blind)
    site = Site(client, machines)
    async with site.control():
        async with site.up():
            host = await site.join()
            await site.until(host, "ready")
            boxes = [await site.sandbox() for _ in range(2)]
        reports = await asyncio.wait_for(asyncio.gather(*map(report_of, boxes)), 60)
        assert machines.ended.count("i-1") >= 1
        assert "i-2" not in machines.ended
        for report in reports:
            assert report.outcome is Outcome.HOST_LOST
            assert {receipt.gone for receipt in report.receipts} == {Gone.IMPLIED_BY_HOST}
            assert all("complete list of the played provider" in one.checked_by for one in report.receipts)
        assert await host.query("status") in ("unreachable", "gone")


async def test_a_host_that_is_back_ends_what_it_holds_of_sandboxes_that_ended_without_it(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        ended, open_ = await joined.sandbox(lifetime_s=30), await joined.sandbox()
        spared = await joined.sandbox()
        for box in (ended, open_):
            joined.holds(box.id, box.first_execution_run_id or "")
        joined.holds(spared.id, spared.first_execution_run_id or "", protected=True)
        joined.holds("never-heard-of", str(uuid.uuid4()))
        await spared.terminate("not by the book")
    assert (await asyncio.wait_for(report_of(ended), 60)).outcome is Outcome.HOST_LOST
    async with joined.up():
        await joined.until(host, "ready")
        assert joined.undone == [ended.id]
        await report_of(open_)


async def test_a_worker_that_is_back_soon_is_no_loss(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        box = await joined.sandbox()
    async with joined.up():
        await asyncio.sleep(6)
        assert await host.query("status") == "ready"
        report = await box.execute_update("stop", "done", result_type=SandboxReport)
    assert report.outcome is Outcome.STOPPED


async def test_a_host_that_leaves_is_gone(joined: Site) -> None:
    async with joined.up():
        host = await joined.join()
        await joined.until(host, "ready")
        await host.signal("leave")
        await asyncio.wait_for(host.result(), 20)
        assert await host.query("status") == "gone"


class Slow(Joined):
    """A provider whose list takes until it is released."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def list_owned(self, controller: str) -> Inventory:
        self.asked.set()
        self.release.wait(30)
        return super().list_owned(controller)


async def test_a_host_that_leaves_in_the_moment_its_fence_answers_is_gone(client: Client) -> None:
    provider = Slow()
    site = Site(client, provider)
    async with site.environment_worker():
        async with site.workflows():
            async with site.up():
                host = await site.join()
                await site.until(host, "ready")
            await site.until(host, "unreachable")
            assert await asyncio.to_thread(provider.asked.wait, 20)
        provider.release.set()
        await host.signal("leave")
        await asyncio.sleep(1)  # both wait for one workflow task
        async with site.workflows():
            await asyncio.wait_for(host.result(), 20)
            assert await host.query("status") == "gone"
