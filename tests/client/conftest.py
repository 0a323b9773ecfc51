"""A real Temporal server, the real `Sandbox` workflow, the real relay and streams; only sandboxes are played."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from paddock.client import Paddock
from paddock.contracts import hosts, names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.policies import PolicyApplied, PolicyDocument
from paddock.contracts.report import AuditSummary, Gone, OutputFile, Receipt, TaskResult
from paddock.embedded import temporal_binary
from paddock.embedded.assets import cache_dir
from paddock.embedded.server import Ports, TemporalServer
from paddock.temporal.connect import connect
from tests.relay.rig import ENVIRONMENT, HOST, Rig
from workflows.late import LateReader
from workflows.policy import PolicyRollout
from workflows.sandbox import Sandbox
from workflows.steps import BEFORE_THE_TASK

MOST_S = 8 * 3600
NEVER_RAN = {"missing": ErrorKind.NOT_FOUND, "text": ErrorKind.NOT_EXECUTABLE}


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a development server for all of these tests."""
    binary = temporal_binary.load(cache_dir())
    server = TemporalServer(Path(binary.path), tmp_path_factory.mktemp("temporal"), Ports.free())
    server.spawn()
    asyncio.run(server.wait_ready())
    yield server.address
    server.stop()


@dataclass
class Playing:
    """A host whose sandboxes are played: `argv` says what the task does."""

    rig: Rig
    inputs: dict[str, bytes] = field(default_factory=dict)
    refuse: ErrorInfo | None = None
    hold_the_end: asyncio.Event = field(default_factory=asyncio.Event)
    workflow_hears_late_s: float = 0
    forgotten: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.hold_the_end.set()

    @activity.defn
    async def resolve_policy(self, ask: hosts.PolicyRequest) -> hosts.ResolvedPolicy:
        return hosts.ResolvedPolicy(name=ask.policy, revision=1, digest="sha256:" + "0" * 64, signed="signed")

    @activity.defn
    async def store_policy(self, document: PolicyDocument) -> PolicyApplied:
        return PolicyApplied(name="repo-fixer", revision=3, digest="sha256:" + "1" * 64)

    @activity.defn
    async def reserve_slot(self, ask: hosts.Reservation) -> hosts.Placed:
        self.rig.link.keys[ask.ref.sandbox_id] = ask.caller_keys
        return hosts.Placed(host=HOST, relay=self.rig.address, error=self.refuse)

    @activity.defn
    async def boot_sandbox(self, boot: hosts.Boot) -> hosts.Booted:
        return hosts.Booted()

    @activity.defn
    async def attach_policy(self, attach: hosts.Attach) -> hosts.Attached:
        return hosts.Attached(digest=attach.policy.digest)

    @activity.defn
    async def run_task(self, run: hosts.RunTask) -> hosts.TaskDone:
        """`echo WORDS`, `exit N`, `die N`, `cat` (its inputs), `wait` (for its end), or a name that never runs."""
        sandbox, (program, *rest) = run.ref.sandbox_id, run.spec.argv
        output = self.rig.link.output(run.task, sandbox)
        if program in NEVER_RAN:
            done = hosts.TaskDone(
                result=TaskResult(), error=ErrorInfo(kind=NEVER_RAN[program], message=f"{program}: no such program")
            )
        elif program == "exit":
            done = hosts.TaskDone(result=TaskResult(exit=int(rest[0])))
        elif program == "die":
            done = hosts.TaskDone(result=TaskResult(signal=int(rest[0]), reason="timeout" if rest[1:] else ""))
        else:
            done = hosts.TaskDone(result=TaskResult(exit=0))
            for ref in run.inputs:
                path = await self.rig.objects.wait(sandbox, ref.digest, 10)
                self.inputs[sandbox] = path.read_bytes()
                await output.add(hashlib.sha256(path.read_bytes()).hexdigest().encode() + b"\n")
            await output.add(" ".join(rest).encode() + b"\n")
        while program == "wait":
            activity.heartbeat()
            await asyncio.sleep(0.02)
        output.done_as = done
        await output.end()
        await asyncio.sleep(self.workflow_hears_late_s)
        return done

    @activity.defn
    async def collect_outputs(self, collect: hosts.Collect) -> hosts.Collected:
        with self.rig.objects.writer(collect.ref.sandbox_id) as writer:
            writer.write(b"fixed\n")
            digest = writer.commit()
        return hosts.Collected(outputs=(OutputFile(path="out/fixed.txt", digest=digest, bytes=6),))

    @staticmethod
    def _gone(resource: str) -> hosts.Undone:
        return hosts.Undone(
            receipts=tuple(
                Receipt(resource=name, id="1", gone=Gone.PROVED, checked_by="looked", at=datetime.now(UTC))
                for step in BEFORE_THE_TASK
                for name in step.receipts
                if resource in step.receipts
            )
        )

    @activity.defn
    async def release_slot(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self._gone("slot")

    @activity.defn
    async def destroy_vm(self, ref: hosts.SandboxRef) -> hosts.Undone:
        await self.hold_the_end.wait()
        return self._gone("vm")

    @activity.defn
    async def revoke_credentials(self, ref: hosts.SandboxRef) -> hosts.Undone:
        return self._gone("credential")

    @activity.defn
    async def seal_audit(self, ref: hosts.SandboxRef) -> hosts.Sealed:
        return hosts.Sealed(audit=AuditSummary(events=1, head="0" * 64, verified=True))

    @activity.defn
    async def extend_lease(self, ask: hosts.ExtendLease) -> None:
        if ask.lease_end > datetime.now(UTC) + timedelta(seconds=MOST_S):
            info = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=f"the lease may end {MOST_S} s from now at the latest")
            raise ApplicationError(info.message, info.model_dump(mode="json"), type=info.kind, non_retryable=True)

    @activity.defn
    async def allow_caller(self, ask: hosts.AllowCaller) -> None:
        if ask.ref.sandbox_id in self.forgotten:
            return
        known = self.rig.link.keys.get(ask.ref.sandbox_id, ())
        self.rig.link.keys[ask.ref.sandbox_id] = (*known, ask.caller_key)


@pytest.fixture
async def playing(temporal: str, tmp_path: Path) -> AsyncGenerator[Playing, None]:
    """Control worker, host and relay, around sandboxes that are played."""
    rig = Rig(tmp_path)
    await rig.start_relay()
    await (await rig.start_host()).connected.wait()
    here, client = Playing(rig), await connect(temporal)
    quick = timedelta(seconds=0.1)

    def worker(queue: str, *activities: object, workflows: tuple[type, ...] = ()) -> Worker:
        return Worker(
            client,
            task_queue=queue,
            workflows=workflows,
            activities=activities,  # type: ignore[arg-type]
            max_heartbeat_throttle_interval=quick,
            default_heartbeat_throttle_interval=quick,
        )

    control = worker(
        names.CONTROL_QUEUE,
        here.resolve_policy,
        here.store_policy,
        workflows=(Sandbox, PolicyRollout, LateReader),
    )
    slots = worker(names.slots_queue(ENVIRONMENT), here.reserve_slot)
    host = worker(
        names.host_queue(ENVIRONMENT, HOST), here.boot_sandbox, here.attach_policy, here.run_task, here.collect_outputs
    )
    ctl = worker(
        names.host_control_queue(ENVIRONMENT, HOST),
        here.release_slot,
        here.destroy_vm,
        here.revoke_credentials,
        here.seal_audit,
        here.extend_lease,
        here.allow_caller,
    )
    async with control, slots, host, ctl:
        yield here
    await rig.stop_host()
    await rig.stop_relay()


@pytest.fixture
async def paddock(temporal: str, playing: Playing) -> AsyncGenerator[Paddock, None]:
    async with Paddock.connect(temporal) as client:
        yield client


@pytest.fixture
async def temporal_client(temporal: str) -> Client:
    return await connect(temporal)
