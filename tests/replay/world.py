"""A real Temporal server and a played host: each activity is answered from one table, and held or broken by script."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from paddock.contracts import fleet, ground, hosts, names, pool
from paddock.contracts.errors import ErrorInfo
from paddock.contracts.policies import PolicyApplied
from paddock.contracts.report import AuditSummary, Gone, Receipt, TaskResult
from paddock.embedded import temporal_binary
from paddock.embedded.assets import cache_dir
from paddock.embedded.server import Ports, TemporalServer
from paddock.temporal.connect import connect
from tests.replay.control import settings
from workflows import ground as growing
from workflows import steps
from workflows.saga import Step

ENVIRONMENT: Final = "played"
HOST: Final = "played-1"
BEAT_S: Final = 0.05
QUICK: Final = timedelta(seconds=0.1)
DIGEST: Final = "sha256:" + "0" * 64
FOR_EVER: Final = {"hold_host"}

ANSWERS: Final[dict[str, Callable[[], object]]] = {
    "resolve_policy": lambda: hosts.ResolvedPolicy(name="deny-all", revision=1, digest=DIGEST, signed="signed"),
    "store_policy": lambda: PolicyApplied(name="p", revision=1, digest=DIGEST),
    "reserve_slot": lambda: hosts.Placed(host=HOST, relay="ws://nowhere"),
    "boot_sandbox": lambda: hosts.Booted(parts_ms={"restore": 1.0}),
    "attach_policy": lambda: hosts.Attached(digest=DIGEST, probes=4),
    "run_task": lambda: hosts.TaskDone(result=TaskResult(exit=0, output_digest=DIGEST, output_bytes=1)),
    "collect_outputs": hosts.Collected,
    "seal_audit": lambda: hosts.Sealed(audit=AuditSummary(events=1, head="h", verified=True)),
    "extend_lease": lambda: None,
    "allow_caller": lambda: None,
    "check_host": lambda: 0,
    "fence_host": lambda: hosts.Fenced(checked_by="the played provider holds no machine"),
    "tell_sandboxes": lambda: 1,
    "create_host": lambda: ground.Machine(id="i-1", name="ph-1", state=ground.HostState.PENDING),
    "watch_host": lambda: ground.Machine(id="i-1", name="ph-1", state=ground.HostState.RUNNING),
    "prove_host": lambda: ground.Proof(parts_ms={"guest": 1.0}),
    "stop_placing": lambda: 0,
    "count_sandboxes": lambda: 0,
    "stop_sandboxes": lambda: 1,
    "view_pool": pool.PoolView,
    "other_sweep": fleet.OtherSweep,
    "list_ground": lambda: ground.GroundInventory(environment=ENVIRONMENT, provider="played", complete=True),
    "list_hosts": lambda: fleet.OpenHosts(hosts=(HOST,)),
    "host_inventory": lambda: fleet.HostInventory(environment=ENVIRONMENT, host=HOST),
    "list_sandboxes": fleet.OpenSandboxes,
    "look_closely": lambda: fleet.Closer(running=False, words="its workflow ended"),
    "forget_leftovers": hosts.Undone,
    "tell_lost": lambda: fleet.Told(told=True, words="it was told"),
    "ask_finding": lambda: "a receipt is missing",
}
"""What each activity answers when all is well; undos that answer receipts need no line."""


@dataclass
class Script:
    """What is played for one workflow: `hold` keeps an activity busy until `release`, `answers` come before the table.

    A list of answers is used up one by one; an exception among them is raised.
    """

    hold: set[str] = field(default_factory=set)
    answers: dict[str, list[object]] = field(default_factory=dict)
    finish: bool = True  # a held do completes in spite of its cancel
    entered: dict[str, asyncio.Event] = field(default_factory=dict)
    released: dict[str, asyncio.Event] = field(default_factory=dict)

    def has_entered(self, name: str) -> asyncio.Event:
        return self.entered.setdefault(name, asyncio.Event())

    def release(self, name: str) -> None:
        self.hold.discard(name)
        self.released.setdefault(name, asyncio.Event()).set()

    async def play(self, name: str) -> object:
        self.has_entered(name).set()
        if name in FOR_EVER or name in self.hold:
            await self._held(name, self.released.setdefault(name, asyncio.Event()))
        waiting = self.answers.get(name)
        answer = waiting.pop(0) if waiting else _usual(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _held(self, name: str, released: asyncio.Event) -> None:
        while not released.is_set():
            activity.heartbeat()
            try:
                await asyncio.sleep(BEAT_S)
            except asyncio.CancelledError:
                if not self.finish or name in FOR_EVER:
                    raise
                return


def _usual(name: str) -> object:
    if name in ANSWERS:
        return ANSWERS[name]()
    for step in (*vars(steps).values(), *vars(growing).values()):
        if isinstance(step, Step) and step.undo and step.undo.activity == name:
            return receipts(step, Gone.PROVED)
    raise ApplicationError(
        f"no answer is written for activity {name}: add it to ANSWERS in tests/replay/world.py",
        type="internal",
        non_retryable=True,
    )


def receipts(step: Step, gone: Gone) -> hosts.Undone:
    return hosts.Undone(
        receipts=tuple(
            Receipt(resource=one, id="x", gone=gone, checked_by="looked", at=datetime.now(UTC)) for one in step.receipts
        )
    )


def broken(name: str, info: ErrorInfo | None = None) -> ApplicationError:
    """A do's failure that no retry mends."""
    if info is None:
        return ApplicationError(f"{name} broke", type="internal", non_retryable=True)
    return ApplicationError(info.message, info.model_dump(mode="json"), type=info.kind.value, non_retryable=True)


@dataclass
class World:
    """The played host and control plane around one server."""

    client: Client
    scripts: dict[str, Script] = field(default_factory=dict)

    @activity.defn(dynamic=True)
    async def anything(self, args: Sequence[RawValue]) -> Any:
        """Any activity of any workflow, as its script says."""
        info = activity.info()
        script = self.scripts.get(info.workflow_id or "") or Script()
        answer = await script.play(info.activity_type)
        return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer

    def serve(self, queue: str, **more: Any) -> Worker:
        """A worker that answers whatever comes to this queue."""
        return Worker(
            self.client,
            task_queue=queue,
            activities=[self.anything],
            build_id="recorded",
            identity=queue,
            max_heartbeat_throttle_interval=QUICK,
            default_heartbeat_throttle_interval=QUICK,
            graceful_shutdown_timeout=timedelta(0),
            max_concurrent_activities=2000,
            **more,
        )

    @asynccontextmanager
    async def host(self, environment: str = ENVIRONMENT, host: str = HOST) -> AsyncIterator[None]:
        """All queues of one host."""
        async with (
            self.serve(names.slots_queue(environment)),
            self.serve(names.host_queue(environment, host)),
            self.serve(names.host_control_queue(environment, host)),
        ):
            yield


@asynccontextmanager
async def server() -> AsyncIterator[TemporalServer]:
    """A development server on a directory of its own."""
    binary = temporal_binary.load(cache_dir())
    with tempfile.TemporaryDirectory(prefix="paddock-replay-") as directory:
        temporal = TemporalServer(Path(binary.path), Path(directory), Ports.free())
        temporal.spawn()
        try:
            await temporal.wait_ready()
            yield temporal
        finally:
            temporal.stop()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Server, the control worker as production has it but for its activities, the host, and the ground.

    A scenario holds a placement for as long as a busy machine takes; nobody calls for a host meanwhile.
    """
    usual, steps.CALL_FOR_A_HOST_S = steps.CALL_FOR_A_HOST_S, 3600.0
    try:
        async with _world() as here:
            yield here
    finally:
        steps.CALL_FOR_A_HOST_S = usual


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    async with server() as temporal:
        client = await connect(temporal.address, identity="recorder")
        here = World(client)
        control = here.serve(names.CONTROL_QUEUE, **settings())
        async with control, here.serve(names.ground_queue(ENVIRONMENT)), here.host():
            yield here
