"""One sweep over many sandboxes: a host's real records, slots and directories, and as many open workflows."""

import asyncio
import base64
import os
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Worker

from activities import fleet
from activities.environment import EnvironmentActivities
from bench import fleet_many
from bench.row import Row
from bench.system import row
from paddock.contracts import names
from paddock.contracts.fleet import CleanupReport, CleanupSpec
from paddock.contracts.hosts import Boot, SandboxRef
from paddock.contracts.ids import sandbox_id
from paddock.contracts.spec import Shape
from paddock.embedded import temporal_binary
from paddock.embedded.assets import cache_dir
from paddock.embedded.server import Ports, TemporalServer
from paddock.host.config import HostConfig
from paddock.host.keeper import Keeper
from paddock.host.messages import KeeperAnswer, RunRecord
from paddock.host.objects import ObjectStore
from paddock.host.processes import Process
from paddock.host.remains import Remains
from paddock.host.slots import Slots
from paddock.host.supervisors import Kept
from paddock.microvm.cgroup import Cgroup, Hierarchy
from paddock.supervisor import rundir
from paddock.temporal.connect import connect
from providers.joined import Joined
from workflows.cleanup import FleetCleanup

MANY = 1000
SWEEPS = 5
ENVIRONMENT, HOST = "local", "bench-1"
TARGET_MS = 2000.0


class HeldHost:
    """A host's state on disk with a record, a run directory and a slot for each sandbox, and its keeper's answers."""

    def __init__(self, root: Path, refs: list[SandboxRef]) -> None:
        key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        self.config = HostConfig(
            environment=ENVIRONMENT,
            host=HOST,
            state=str(root),
            cache=str(root / "cache"),
            temporal="",
            slots=max(1, len(refs)),
            policy_public_key=base64.b64encode(key).decode(),
        )
        paths, old = self.config.paths, datetime.now(UTC) - timedelta(hours=1)
        for directory in (paths.held, paths.run, paths.output, paths.worker):
            directory.mkdir(parents=True)
        self.slots, self.objects = Slots(paths.slots, self.config.slots), ObjectStore(paths.objects)
        kept, me = {}, Process.of(os.getpid())
        for index, ref in enumerate(refs):
            boot = Boot(ref=ref, image="base", shape=Shape(), lease_end=datetime.now(UTC) + timedelta(hours=1))
            record = RunRecord(ref=ref, boot=boot, index=index, pid=1, created=old, lease_end=boot.lease_end)
            rundir.write(paths.record(ref.sandbox_id), record)
            paths.sandbox(ref.sandbox_id).mkdir()
            (paths.output / ref.sandbox_id).mkdir()
            self.slots._held[ref.sandbox_id] = _slot(ref)
            nowhere = Cgroup.at(ref.sandbox_id, Hierarchy(None, ()))
            kept[ref.sandbox_id] = Kept(record, Remains(paths, ref.sandbox_id, nowhere, me))
        self.slots._save()
        self._keeper = object.__new__(Keeper)  # its looks, without its loop and its services
        self._keeper.config = self.config
        self._keeper.supervisors = SimpleNamespace(kept=kept)  # type: ignore[assignment]
        self._keeper.templates = SimpleNamespace(keys=frozenset())  # type: ignore[assignment]

    async def ask(self, op: str, **_: Any) -> KeeperAnswer:
        """As KeeperLink.ask, with the answer written and read as on the wire."""
        if op == "leases":
            now = time.time()
            return KeeperAnswer(id=1, leases=dict.fromkeys(self._keeper.supervisors.kept, now - 3600))
        answer = await asyncio.to_thread(self._keeper._survey, 1)
        return KeeperAnswer.model_validate_json(answer.model_dump_json())


def _slot(ref: SandboxRef) -> Any:
    from paddock.host.slots import Slot

    return Slot(sandbox_id=ref.sandbox_id, workflow_id=ref.workflow_id, confirmed=True, expires_at=time.time() - 3600)


async def start_many(client: Client, count: int) -> list[SandboxRef]:
    """Open `Sandbox` workflows that nobody works on, with the attributes that a sandbox has when it is ready."""
    attributes = TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(names.ENVIRONMENT), ENVIRONMENT),
            SearchAttributePair(SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE), HOST),
            SearchAttributePair(SearchAttributeKey.for_keyword(names.STATE), "ready"),
        ]
    )
    turns = asyncio.Semaphore(32)

    async def one(number: int) -> SandboxRef:
        async with turns:
            handle = await client.start_workflow(
                names.SANDBOX,
                id=names.sandbox_workflow_id(f"bench-{number}"),
                task_queue="nobody",
                search_attributes=attributes,
                args=[],
            )
        run = handle.first_execution_run_id or ""
        return SandboxRef(
            sandbox_id=sandbox_id(handle.id, run),
            workflow_id=handle.id,
            run_id=run,
            environment=ENVIRONMENT,
            host=HOST,
        )

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def sweeps(client: Client, root: Path, count: int, times: int) -> tuple[list[float], CleanupReport]:
    """Milliseconds of each sweep from its start to its report at the caller, and the last report."""
    refs = await start_many(client, count)
    await client.start_workflow(names.HOST, id=names.host_workflow_id(ENVIRONMENT, HOST), task_queue="nobody", args=[])
    query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running"'
    while (await client.count_workflows(query)).count < count:
        await asyncio.sleep(0.1)
    host = HeldHost(root, refs)
    ctl = fleet.HostFleetActivities(host.config, host, host.slots, host.objects)  # type: ignore[arg-type]
    ground = EnvironmentActivities(ENVIRONMENT, Joined())
    took, report = [], CleanupReport(environment=ENVIRONMENT)
    async with AsyncExitStack() as stack:
        for worker in (
            Worker(client, task_queue=names.CONTROL_QUEUE, workflows=[FleetCleanup], activities=fleet.ON_CONTROL),
            Worker(client, task_queue=names.ground_queue(ENVIRONMENT), activities=[ground.list_ground]),
            Worker(client, task_queue=names.host_control_queue(ENVIRONMENT, HOST), activities=[ctl.host_inventory]),
        ):
            await stack.enter_async_context(worker)
        for number in range(times):
            began = time.monotonic()
            report = await client.execute_workflow(
                names.FLEET_CLEANUP,
                CleanupSpec(grace_s=1),
                id=f"bench-sweep-{number}",
                task_queue=names.CONTROL_QUEUE,
                result_type=CleanupReport,
            )
            took.append((time.monotonic() - began) * 1e3)
    return took, report


async def rows(count: int = MANY, times: int = SWEEPS) -> list[Row]:
    """The figures of this part."""
    with tempfile.TemporaryDirectory(prefix="paddock-bench-") as directory:
        server = TemporalServer(
            Path(temporal_binary.load(cache_dir()).path), Path(directory) / "temporal", Ports.free()
        )
        server.spawn()
        try:
            await server.wait_ready()
            took, report = await sweeps(await connect(server.address), Path(directory) / "host", count, times)
            many = await fleet_many.rows(server.address)
        finally:
            server.stop()
    assert (report.known, report.rows, report.incomplete) == (count, (), ()), report
    return [row(f"sweep_{count}", "ms", took, TARGET_MS), *many]
