"""One sweep of an environment with a thousand machines: played lists, the real workflow on a real Temporal.

The sweep's own process (control and environment worker) is measured by itself; the hosts are played by this one.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.api.common.v1 import Payloads
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities import fleet
from activities.environment import EnvironmentActivities
from bench.row import Row
from bench.system import row
from paddock.contracts import names
from paddock.contracts.fleet import (
    PAGE,
    Action,
    CleanupReport,
    CleanupSpec,
    Found,
    Hold,
    HostInventory,
    ListSandboxes,
    OpenHosts,
    OpenSandbox,
    OpenSandboxes,
)
from paddock.contracts.ids import sandbox_id
from paddock.temporal.connect import connect
from providers.contract import HostOrder, HostSize, HostState, Inventory, Item
from worker.control import RUNNER
from workflows.cleanup import FleetCleanup

MACHINES: Final = 1000
ORPHANS: Final = 10
RECORDS: Final = 10_000
SWEEPS: Final = 3
TARGET_S: Final = 10.0
TARGET_MIB: Final = 200.0
AT_ONCE: Final = 32
ENVIRONMENT: Final = "bench-far"
HOSTS: Final = tuple(f"h-{number:04}" for number in range(MACHINES - ORPHANS))
# The others boot: they are listed and judged, and there is nobody yet who could be asked.
BUSY: Final = HOSTS[: int(os.environ.get("PADDOCK_BENCH_HOSTS", "200"))]
BETWEEN_S: Final = 1
WITHIN_S: Final = 300.0


class Played:
    """A provider with a machine, its disk and its interface for each host, and for some that no workflow owns."""

    name = "played"

    def __init__(self) -> None:
        self.items = [item for number in range(MACHINES) for item in _machine(number)]

    def list_owned(self, controller: str) -> Inventory:
        return Inventory(tuple(self.items), complete=True)

    def catalogue(self) -> Sequence[HostSize]:
        return [HostSize(f"size-{n}", 8, 32768, "nested", 0.1 * n, "USD", datetime.now(UTC)) for n in range(1, 60)]

    def get(self, order: HostOrder) -> Item | None:
        raise NotImplementedError

    def create(self, order: HostOrder) -> Item:
        raise NotImplementedError

    def terminate(self, item: Item) -> HostState:
        raise NotImplementedError


def _machine(number: int) -> tuple[Item, Item, Item]:
    tags: dict[str, Any] = {
        "state": HostState.RUNNING,
        "zone": "region-1a",
        "host": f"h-{number:04}",
        "attempt": 1,
        "controller": "paddock",
        "created": datetime.now(UTC) - timedelta(hours=1),
    }
    machine = Item(id=f"i-{number:017x}", kind="host", name=f"ph-{number:020x}-1", size="size-4", **tags)
    disk = Item(id=f"vol-{number:017x}", kind="disk", name=machine.name, attached_to=machine.id, **tags)
    return machine, disk, Item(id=f"eni-{number:017x}", kind="nic", name="", attached_to=machine.id, **tags)


def _workflow(number: int) -> tuple[str, str]:
    return names.sandbox_workflow_id(f"bench-{number}"), f"00000000-0000-4000-8000-{number:012}"


def _host(number: int) -> str:
    return BUSY[number % len(BUSY)]


def inventory(host: str) -> HostInventory:
    """What one host says that it holds."""
    found = []
    for number in range(BUSY.index(host), RECORDS, len(BUSY)):
        workflow_id, run_id = _workflow(number)
        holds = (Hold.RECORD, Hold.PROCESSES, Hold.RUNDIR, Hold.SLOT)
        name = sandbox_id(workflow_id, run_id)
        found.append(Found(sandbox_id=name, workflow_id=workflow_id, run_id=run_id, age_s=3600, holds=holds))
    return HostInventory(environment=ENVIRONMENT, host=host, found=tuple(found))


@activity.defn
async def list_hosts(environment: str) -> OpenHosts:
    return OpenHosts(hosts=HOSTS, states={one: "ready" if one in BUSY else "booting" for one in HOSTS})


@activity.defn
async def list_sandboxes(ask: ListSandboxes) -> OpenSandboxes:
    begin = int(ask.page or 0)
    found = []
    for number in range(begin, min(begin + PAGE, RECORDS)):
        workflow_id, run_id = _workflow(number)
        one = OpenSandbox(
            sandbox_id=sandbox_id(workflow_id, run_id),
            workflow_id=workflow_id,
            run_id=run_id,
            host=_host(number),
            state="ready",
            age_s=3600,
        )
        found.append(one)
    return OpenSandboxes(open=tuple(found), page=str(begin + PAGE) if begin + PAGE < RECORDS else "")


async def _play_hosts(client: Client, looks: int) -> None:
    """Answer for every host once for each look: each has a queue of its own, and no worker would poll so many."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def answer(host: str) -> None:
        queue = TaskQueue(name=names.host_control_queue(ENVIRONMENT, host))
        ask = PollActivityTaskQueueRequest(namespace=client.namespace, task_queue=queue, identity="bench")
        [said] = await client.data_converter.encode([inventory(host)])
        async with turns:
            task = await _polled(client, ask)
            await client.workflow_service.respond_activity_task_completed(
                RespondActivityTaskCompletedRequest(
                    namespace=client.namespace, task_token=task.task_token, result=Payloads(payloads=[said])
                )
            )

    for _ in range(looks):
        await asyncio.gather(*map(answer, BUSY))


async def _polled(client: Client, ask: PollActivityTaskQueueRequest) -> PollActivityTaskQueueResponse:
    """The one task of a queue, however long it takes to come."""
    while True:
        try:
            task = await client.workflow_service.poll_activity_task_queue(ask)
        except RPCError:  # a long poll that the server gave up
            continue
        if task.task_token:
            return task


async def rows(address: str, times: int = SWEEPS) -> list[Row]:
    """The figures: from a sweep's start to its report, with both looks and without the wait between them."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.fleet_many", address, str(times), stdout=asyncio.subprocess.PIPE
    )
    playing = asyncio.ensure_future(_play_hosts(await connect(address), 2 * times))
    try:
        out, _ = await asyncio.wait_for(child.communicate(), WITHIN_S)
        await playing
    finally:
        playing.cancel()
        if child.returncode is None:
            child.kill()
            await child.wait()
    said = json.loads(out.splitlines()[-1])  # the SDK's own warnings come before it
    return [
        row(f"sweep_{MACHINES}_machines_s", "s", said["took_s"], TARGET_S),
        row(f"sweep_{MACHINES}_machines_mib", "MiB", [said["mib"]], TARGET_MIB),
    ]


async def _sweeps(address: str, times: int) -> dict[str, object]:
    client = await connect(address)
    ground = EnvironmentActivities(ENVIRONMENT, Played())
    control = Worker(
        client,
        task_queue=names.CONTROL_QUEUE,
        workflows=[FleetCleanup],
        activities=[list_hosts, list_sandboxes, fleet.other_sweep],
        workflow_runner=RUNNER,
    )
    environment = Worker(client, task_queue=names.ground_queue(ENVIRONMENT), activities=[ground.list_ground])
    took = []
    async with control, environment:
        for number in range(times):
            began = time.monotonic()
            report = await client.execute_workflow(
                names.FLEET_CLEANUP,
                CleanupSpec(environment=ENVIRONMENT, dry_run=True, between_s=BETWEEN_S, host_s=60),
                id=f"bench-sweep-many-{number}",
                task_queue=names.CONTROL_QUEUE,
                result_type=CleanupReport,
            )
            took.append(time.monotonic() - began - BETWEEN_S)
            said = (report.known, report.machines, report.hosts, report.counts, report.incomplete)
            assert said == (RECORDS, MACHINES, len(BUSY), {Action.WOULD_FREE: ORPHANS}, ()), report
            assert report.saves_per_hour == {"USD": 0.4 * ORPHANS}
    return {"took_s": took, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sweeps(sys.argv[1], int(sys.argv[2])))))
