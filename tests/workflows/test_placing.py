"""Placing on a real server, by hosts with real tables of slots: full again and again, free meanwhile, told to end."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.place import PlaceActivities
from paddock.contracts import hosts, names
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone, Outcome, SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Status
from paddock.host.config import HostConfig
from paddock.host.gate import Gate
from paddock.host.slots import Slots
from paddock.temporal.connect import connect
from tests.workflows.conftest import World
from tests.workflows.test_sandbox import report_of
from workflows.sandbox import Sandbox

Handle = WorkflowHandle[object, SandboxReport]
OTHER = "sb-" + "0" * 20
MANY = 4


@dataclass
class Site:
    """An environment's hosts, each with one slot in a table of its own; what they boot is played."""

    address: str
    client: Client
    directory: Path
    stack: AsyncExitStack
    environment: str

    async def host(self, name: str, full: bool = False) -> PlaceActivities:
        """A host that answers every placement: without the gate before its poll it is asked when it is full, too."""
        config = HostConfig(
            environment=self.environment,
            host=name,
            state=str(self.directory),
            cache="",
            temporal="",
            relay="ws://nowhere",
            policy_public_key="",
        )
        place, world = (
            PlaceActivities(config, Gate(_slots(self.directory, name)), frozenset({"base"})),
            World(host=name),
        )
        if full:
            place.gate.slots.confirm(OTHER, "another", ())
        client = await connect(self.address)  # each host its own: one client polls a queue once
        undos = [place.release_slot, world.destroy_vm, world.revoke_credentials, world.seal_audit]
        await self.worker(client, names.slots_queue(self.environment), place.reserve_slot)
        await self.worker(client, names.host_queue(self.environment, name), world.boot_sandbox, world.attach_policy)
        await self.worker(client, names.host_control_queue(self.environment, name), *undos)
        return place

    async def worker(self, client: Client, queue: str, *activities: Any, workflows: tuple[type, ...] = ()) -> None:
        """One poll at a time, so that two hosts are asked by turns."""
        made = Worker(
            client,
            task_queue=queue,
            activities=activities,
            workflows=workflows,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(1),
            graceful_shutdown_timeout=timedelta(0),
        )
        await self.stack.enter_async_context(made)

    async def sandbox(self, place_timeout_s: int) -> Handle:
        return await self.client.start_workflow(
            names.SANDBOX,
            SandboxSpec(environment=self.environment, place_timeout_s=place_timeout_s),
            id=f"placed-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
            result_type=SandboxReport,
        )


def _slots(directory: Path, name: str) -> Slots:
    return Slots(directory / f"{name}.json", 1)


def name_of(box: Handle) -> str:
    return sandbox_id(box.id, box.first_execution_run_id or "")


async def answers(box: Handle) -> list[hosts.Placed]:
    """Every answer to a placement that the workflow's history holds, in order."""
    asked, found = set(), []
    for event in (await box.fetch_history()).events:
        if event.activity_task_scheduled_event_attributes.activity_type.name == "reserve_slot":
            asked.add(event.event_id)
        done = event.activity_task_completed_event_attributes
        if event.HasField("activity_task_completed_event_attributes") and done.scheduled_event_id in asked:
            found.append(hosts.Placed.model_validate(json.loads(done.result.payloads[0].data)))
    return found


async def waits(box: Handle) -> list[float]:
    """The seconds of each wait between two asks."""
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
        for event in (await box.fetch_history()).events
        if json.loads(event.user_metadata.summary.data or "0") == "ask for a slot again"
    ]


async def refused(box: Handle, times: int) -> None:
    """Until it was told so often that a host is full."""
    async with asyncio.timeout(30):
        while sum(answer.full for answer in await answers(box)) < times:
            await asyncio.sleep(0.05)


async def ready(box: Handle) -> Status:
    async with asyncio.timeout(30):
        while (status := await box.query("status", result_type=Status)).state != "ready":
            await asyncio.sleep(0.05)
    return status


async def stop(box: Handle) -> SandboxReport:
    return await box.execute_update("stop", "enough", result_type=SandboxReport)


@pytest.fixture
async def site(temporal: str, client: Client, tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        here = Site(temporal, client, tmp_path, stack, f"e-{uuid.uuid4().hex[:12]}")
        await here.worker(client, names.CONTROL_QUEUE, World().resolve_policy, workflows=(Sandbox,))
        yield here


async def test_a_host_that_stays_full_is_asked_until_the_time_is_out_and_then_it_is_no_slot(
    site: Site, tmp_path: Path
) -> None:
    full = await site.host("full-1", full=True)
    box = await site.sandbox(place_timeout_s=3)
    report = await asyncio.wait_for(report_of(box), 30)
    described = await box.describe()
    assert described.close_time
    assert (
        3 <= (described.close_time - described.start_time).total_seconds() < 3 + 2 + 10
    )  # a wait, and a loaded machine
    assert described.status is WorkflowExecutionStatus.FAILED
    assert report.outcome is Outcome.REFUSED
    assert report.error
    assert (report.error.kind, report.error.field) == ("no-slot", "place_timeout_s")
    assert "within 3 s" in report.error.message
    assert report.error.remedy
    said, waited = await answers(box), await waits(box)
    assert [answer.full for answer in said] == [True] * (len(waited) + 1)
    assert waited[:-1] == [min(2.0, 0.02 * 2**n) for n in range(len(waited) - 1)]
    assert waited[-1] <= 2
    assert len(waited) >= 3
    [slot] = report.receipts
    assert (slot.resource, slot.gone) == ("slot", Gone.PROVED)
    for table in (full.gate.slots, _slots(tmp_path, "full-1")):  # as it is, and as a next worker would read it
        assert [one.sandbox_id for one in table.held()] == [OTHER]
    full.gate.release(OTHER)
    assert full.gate.slots.free() == 1


async def test_a_host_that_becomes_free_meanwhile_takes_it(site: Site) -> None:
    host = await site.host("full-1", full=True)
    box = await site.sandbox(place_timeout_s=60)
    await refused(box, MANY)
    host.gate.release(OTHER)
    assert (await ready(box)).host == "full-1"
    assert [one.sandbox_id for one in host.gate.slots.held()] == [name_of(box)]
    report = await stop(box)
    assert report.outcome is Outcome.STOPPED
    [slot] = [receipt for receipt in report.receipts if receipt.resource == "slot"]
    assert (slot.id, slot.gone) == (name_of(box), Gone.PROVED)
    assert host.gate.slots.free() == 1


async def test_another_host_takes_it_while_the_first_stays_full(site: Site) -> None:
    full = await site.host("full-1", full=True)
    box = await site.sandbox(place_timeout_s=60)
    await refused(box, MANY)
    free = await site.host("free-1")
    assert (await ready(box)).host == "free-1"
    assert [one.sandbox_id for one in free.gate.slots.held()] == [name_of(box)]
    assert [one.sandbox_id for one in full.gate.slots.held()] == [OTHER]
    await stop(box)
    assert free.gate.slots.free() == 1


async def test_one_that_is_told_to_end_asks_no_more_and_holds_nothing(site: Site) -> None:
    full = await site.host("full-1", full=True)
    box = await site.sandbox(place_timeout_s=60)
    await refused(box, MANY)
    report = await asyncio.wait_for(stop(box), 10)
    assert (report.outcome, report.host) == (Outcome.STOPPED, "")
    asked = len(await answers(box))
    full.gate.release(OTHER)
    assert (await box.describe()).status is WorkflowExecutionStatus.COMPLETED
    assert len(await answers(box)) == asked
    assert full.gate.slots.free() == 1
