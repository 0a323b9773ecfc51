"""A real Temporal server and a world of fake host activities: what exists, and every call in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from paddock.contracts import hosts, names
from paddock.contracts.report import AuditSummary, Gone, Receipt, TaskResult
from paddock.embedded import temporal_binary
from paddock.embedded.assets import cache_dir
from paddock.embedded.server import Ports, TemporalServer
from paddock.temporal.connect import connect
from tests.workflows.harness.cases import Case, play_all
from tests.workflows.harness.invariants import Ended
from tests.workflows.harness.processes import Workers
from tests.workflows.harness.stage import Stage, stage
from workflows.sandbox import Sandbox
from workflows.steps import BEFORE_THE_TASK

ENVIRONMENT = "fake"
HOST = "fake-1"
# Answers that are none: an encoding that nobody has, JSON that ends early, nothing at all.
UNREADABLE = (
    RawValue(Payload(metadata={"encoding": b"none/such"}, data=b"x")),
    RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{")),
    RawValue(Payload()),
)


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real development server."""
    binary = temporal_binary.load(cache_dir())
    server = TemporalServer(Path(binary.path), tmp_path_factory.mktemp("temporal"), Ports.free())
    server.spawn()
    asyncio.run(server.wait_ready())
    yield server.address
    server.stop()


@dataclass
class World:
    """What the fake host holds; `fail` breaks a do after it half-succeeded, `slow` keeps one busy until released."""

    calls: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    fail: str = ""
    slow: str = ""
    inside: dict[str, asyncio.Event] = field(default_factory=dict)
    slow_s: float = 0.4
    unproved: int = 0
    exit: int = 0
    verified: bool = True
    events: int = 1
    host: str = HOST

    def entered(self, name: str) -> asyncio.Event:
        return self.inside.setdefault(name, asyncio.Event())

    async def do(self, name: str, takes: str | None) -> None:
        self.calls.append(name)
        if takes:
            self.held.add(takes)
        self.entered(name).set()
        if self.slow == name:
            end = asyncio.get_running_loop().time() + self.slow_s
            while asyncio.get_running_loop().time() < end:
                activity.heartbeat()
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue  # a do that completes in spite of its cancel
        if self.fail == name:
            raise ApplicationError(f"{name} broke", type="internal", non_retryable=True)

    def undo(self, name: str, takes: str) -> hosts.Undone:
        self.calls.append(name)
        gone = Gone.UNPROVED if self.unproved else Gone.PROVED
        if self.unproved:
            self.unproved -= 1
        else:
            self.held.discard(takes)
        return hosts.Undone(
            receipts=tuple(
                Receipt(resource=resource, id="x", gone=gone, checked_by="looked", at=datetime.now(UTC))
                for step in BEFORE_THE_TASK
                for resource in step.receipts
                if takes in step.receipts
            )
        )

    @activity.defn
    async def resolve_policy(self, request: hosts.PolicyRequest) -> hosts.ResolvedPolicy:
        await self.do("resolve_policy", None)
        return hosts.ResolvedPolicy(name=request.policy, revision=1, digest="sha256:" + "0" * 64, signed="signed")

    @activity.defn
    async def reserve_slot(self, ask: hosts.Reservation) -> hosts.Placed:
        await self.do("reserve_slot", "slot")
        return hosts.Placed(host=self.host, relay="ws://nowhere")

    @activity.defn
    async def boot_sandbox(self, boot: hosts.Boot) -> hosts.Booted:
        await self.do("boot_sandbox", "vm")
        return hosts.Booted()

    @activity.defn
    async def attach_policy(self, attach: hosts.Attach) -> hosts.Attached:
        await self.do("attach_policy", "credential")
        return hosts.Attached(digest=attach.policy.digest)

    @activity.defn
    async def run_task(self, run: hosts.RunTask) -> hosts.TaskDone:
        await self.do("run_task", None)
        return hosts.TaskDone(result=TaskResult(exit=self.exit))

    @activity.defn
    async def collect_outputs(self, collect: hosts.Collect) -> hosts.Collected:
        await self.do("collect_outputs", None)
        return hosts.Collected()

    @activity.defn
    async def release_slot(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self.undo("release_slot", "slot")

    @activity.defn
    async def destroy_vm(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self.undo("destroy_vm", "vm")

    @activity.defn
    async def revoke_credentials(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self.undo("revoke_credentials", "credential")

    @activity.defn
    async def seal_audit(self, ref: hosts.SandboxRef) -> hosts.Sealed:
        self.calls.append("seal_audit")
        return hosts.Sealed(audit=AuditSummary(events=self.events, head="h", verified=self.verified))

    @activity.defn
    async def extend_lease(self, ask: hosts.ExtendLease) -> None:
        self.calls.append("extend_lease")

    @activity.defn
    async def allow_caller(self, ask: hosts.AllowCaller) -> None:
        self.calls.append("allow_caller")


@pytest.fixture
async def client(temporal: str) -> Client:
    return await connect(temporal)


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    """A control worker and a fake host around one world."""
    here = World()
    quick = {
        "max_heartbeat_throttle_interval": timedelta(seconds=0.1),
        "default_heartbeat_throttle_interval": timedelta(seconds=0.1),
    }
    control = Worker(
        client,
        task_queue=names.CONTROL_QUEUE,
        workflows=[Sandbox],
        activities=[here.resolve_policy],
        **quick,  # type: ignore[arg-type]
    )
    slots = Worker(client, task_queue=names.slots_queue(ENVIRONMENT), activities=[here.reserve_slot], **quick)  # type: ignore[arg-type]
    host = Worker(
        client,
        task_queue=names.host_queue(ENVIRONMENT, HOST),
        activities=[here.boot_sandbox, here.attach_policy, here.run_task, here.collect_outputs],
        **quick,  # type: ignore[arg-type]
    )
    ctl = Worker(
        client,
        task_queue=names.host_control_queue(ENVIRONMENT, HOST),
        activities=[
            here.release_slot,
            here.destroy_vm,
            here.revoke_credentials,
            here.seal_audit,
            here.extend_lease,
            here.allow_caller,
        ],
        **quick,  # type: ignore[arg-type]
    )
    async with control, slots, host, ctl:
        yield here


Played = Callable[[Case, str], Ended]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, temporal: str, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The cases that this module's tests name, all played side by side: they wait most of their time.

    A test's `case` is played with the `mistake` that it names, if any, planted into the workflow.
    """
    specs = [spec.params for item in request.session.items if (spec := getattr(item, "callspec", None))
             and item.path == request.path and "case" in spec.params]  # fmt: skip
    wanted = list(dict.fromkeys((params["case"], params.get("mistake", "")) for params in specs))

    async def play() -> dict[tuple[Case, str], Ended | Exception]:
        async with stage(temporal, tmp_path_factory.mktemp("harness")) as here:
            return await play_all(here, wanted)

    found = asyncio.run(play())

    def ended(case: Case, mistake: str = "") -> Ended:
        one = found[case, mistake]
        if isinstance(one, Exception):
            raise one
        return one

    return ended


@pytest.fixture(scope="module")
def processes(temporal: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    workers = Workers(temporal, tmp_path_factory.mktemp("processes"))
    yield workers
    workers.close()


@pytest.fixture
async def here(client: Client, processes: Workers) -> Stage:
    """A stage of the harness, with worker processes that may be killed."""
    return Stage(client, processes)
