"""The control worker is killed between a sweep's two looks: the next one looks again, and frees what is right, once."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from paddock.contracts import names
from paddock.contracts.fleet import Action, CleanupProgress, CleanupReport, Kind
from paddock.contracts.report import Gone
from tests.workflows.fleet import EVERY_RECEIPT, ORDER, Site, open_hosts
from workflows.cleanup import ENVIRONMENT_KEY

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 600
YOUNG = 60.0
Sweep = WorkflowHandle[object, CleanupReport]


@dataclass
class Control:
    """The real control worker, as processes that are killed without a warning."""

    address: str
    directory: Path
    schedules: str
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        key = self.directory / "key"
        if not key.exists():
            key.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
        words = ("--address", self.address, "--policies", self.directory, "--policy-key", key)
        ties = ("--environment", self.schedules, "--parent", str(os.getpid()))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker.control", *words, *ties, cwd=ROOT
        )

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await asyncio.wait_for(self.process.wait(), 20)


@pytest.fixture
async def control(client: Client, temporal: str, tmp_path: Path) -> AsyncIterator[Control]:
    schedules = f"e-{uuid.uuid4().hex[:12]}"  # no sweep of its own comes between: they are of another environment
    here = Control(temporal, tmp_path, schedules)
    await here.start()
    yield here
    await here.kill()
    try:
        await client.get_schedule_handle(names.cleanup_schedule_id(schedules)).delete()
    except RPCError as wrong:
        if wrong.status is not RPCStatusCode.NOT_FOUND:
            raise


@pytest.fixture
async def held(client: Client) -> AsyncIterator[Site]:
    """A host that answers, and nobody yet who works on the control queue."""
    site = Site(client)
    entity = await client.start_workflow(
        names.HOST, id=names.host_workflow_id(site.environment, site.host), task_queue="nobody", args=[]
    )
    undos = [site.revoke_credentials, site.destroy_vm, site.seal_audit, site.release_slot]
    async with AsyncExitStack() as stack:
        for queue, activities in (
            (names.ground_queue(site.environment), [site.list_ground]),
            (names.host_control_queue(site.environment, site.host), [site.host_inventory, *undos]),
        ):
            await stack.enter_async_context(Worker(client, task_queue=queue, activities=activities))
        async with asyncio.timeout(20):
            while not await open_hosts(client, site.environment):
                await asyncio.sleep(0.05)
        yield site
    await entity.terminate()


async def box(site: Site, name: str) -> WorkflowHandle[object, object]:
    """A sandbox's workflow as the index knows it, open until somebody terminates it."""
    return await site.client.start_workflow(
        names.SANDBOX,
        id=f"{site.environment}/{name}",
        task_queue="nobody",
        args=[],
        search_attributes=TypedSearchAttributes([SearchAttributePair(ENVIRONMENT_KEY, site.environment)]),
    )


async def orphan(site: Site, name: str) -> WorkflowHandle[object, object]:
    made = await box(site, name)
    await made.terminate("by a person")
    return made


async def waiting(sweep: Sweep) -> CleanupProgress:
    """Where the sweep is, once it waits for its second look."""
    async with asyncio.timeout(60):  # the control worker starts
        while not (now := await sweep.query("progress", result_type=CleanupProgress)).wakes_at:
            await asyncio.sleep(0.05)
    return now


async def woken(sweep: Sweep) -> None:
    """Until the server's timer for the second look fired."""
    async with asyncio.timeout(20):
        while not any(
            event.event_type == EventType.EVENT_TYPE_TIMER_FIRED for event in (await sweep.fetch_history()).events
        ):
            await asyncio.sleep(0.1)


async def test_the_next_control_worker_looks_a_second_time_and_frees_what_is_right_once(
    held: Site, control: Control
) -> None:
    site = held
    orphans = [site.holds(await orphan(site, f"orphan-{n}")) for n in range(2)]
    vanishes = site.holds(await orphan(site, "vanishes"))
    protected = site.holds(await orphan(site, "protected"), protected=True)
    young = site.holds(await orphan(site, "young"), age_s=YOUNG)
    runs = await box(site, "runs")
    site.holds(runs)
    late = await orphan(site, "late")
    await site.listed(runs.id)

    def between(look: int) -> None:
        if look == 2:
            site.found = [one for one in site.found if one.sandbox_id != vanishes]
            site.holds(late)

    site.before_look = between
    sweep = await site.start(grace_s=GRACE_S, between_s=4, host_s=10)
    assert (await waiting(sweep)).suspects == 3
    await control.kill()
    await woken(sweep)
    assert (site.looks, site.undone) == (1, [])
    assert (await sweep.describe()).status is WorkflowExecutionStatus.RUNNING

    await control.start()
    report = await asyncio.wait_for(sweep.result(), 60)
    assert (report.passes, site.looks, report.hosts, report.asks, report.incomplete) == (2, 2, 1, "", ())
    rows = {row.id: row for row in report.rows}
    [seen_once] = {*rows} - {*orphans, protected, young}
    assert {row.kind for row in report.rows} == {Kind.SANDBOX}
    assert {name: row.action for name, row in rows.items()} == {
        **dict.fromkeys(orphans, Action.FREED),
        **dict.fromkeys((protected, young, seen_once), Action.SPARED),
    }
    assert "paddock-protect" in rows[protected].why
    assert f"younger than {GRACE_S} s" in rows[young].why
    assert rows[seen_once].workflow_id == late.id
    assert "seen once only" in rows[seen_once].why
    for name in orphans:
        assert [undo for undo, sandbox in site.undone if sandbox == name] == ORDER
        assert {receipt.resource for receipt in rows[name].receipts} == EVERY_RECEIPT
        assert {receipt.gone for receipt in rows[name].receipts} == {Gone.PROVED}
    assert {sandbox for _, sandbox in site.undone} == {*orphans}
    await runs.terminate()
