"""Schedules on a real server: declared in one place, put there once, and an operator's pause is his own."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleOverlapPolicy,
)

from paddock.client.fleet import SweepGoingOn, cleanup
from paddock.contracts import names
from paddock.contracts.fleet import Action, CleanupSpec
from tests.workflows.conftest import client, temporal
from tests.workflows.fleet import Site, running, site
from worker.schedules import Declared, declared, keep, upsert

__all__ = ["client", "site", "temporal"]


@pytest.fixture
async def wanted(client: Client) -> AsyncIterator[Declared]:
    """The sweep of an environment of this test's own."""
    [one] = declared([f"e-{uuid.uuid4().hex[:12]}"])
    yield one
    handle = client.get_schedule_handle(one.id)
    await handle.delete()


async def there(client: Client, wanted: Declared) -> tuple[ScheduleHandle, ScheduleDescription]:
    handle = client.get_schedule_handle(wanted.id)
    return handle, await handle.describe()


async def test_the_sweep_is_scheduled_as_declared(client: Client, wanted: Declared) -> None:
    await keep(client, [wanted])
    _, found = await there(client, wanted)
    schedule = found.schedule
    assert isinstance(schedule.action, ScheduleActionStartWorkflow)
    assert (schedule.action.workflow, schedule.action.task_queue) == (names.FLEET_CLEANUP, names.CONTROL_QUEUE)
    assert schedule.policy.overlap is ScheduleOverlapPolicy.SKIP
    assert schedule.policy.catchup_window == timedelta(minutes=30)
    assert [interval.every for interval in schedule.spec.intervals] == [timedelta(minutes=15)]
    assert schedule.spec.jitter
    assert not schedule.state.paused


def test_every_environment_has_a_schedule_of_its_own() -> None:
    found = declared(["local", "aws-1"])
    assert [one.id for one in found] == ["fleet-cleanup/local", "fleet-cleanup/aws-1"]
    assert [one.argument for one in found] == [CleanupSpec(environment="local"), CleanupSpec(environment="aws-1")]


async def test_the_same_again_changes_nothing(client: Client, wanted: Declared) -> None:
    await upsert(client, wanted)
    _, before = await there(client, wanted)
    await upsert(client, wanted)
    _, after = await there(client, wanted)
    assert after.info.last_updated_at == before.info.last_updated_at
    assert after.schedule == before.schedule


async def test_an_operators_pause_and_note_survive_also_when_the_declaration_changed(
    client: Client, wanted: Declared
) -> None:
    await upsert(client, wanted)
    handle, _ = await there(client, wanted)
    await handle.pause(note="the store is being moved; Ada")
    await upsert(client, wanted)
    changed = replace(wanted, every=timedelta(minutes=20), argument=CleanupSpec(environment="local", grace_s=900))
    await upsert(client, changed)
    _, found = await there(client, wanted)
    assert found.schedule.state.paused
    assert found.schedule.state.note == "the store is being moved; Ada"
    assert [interval.every for interval in found.schedule.spec.intervals] == [timedelta(minutes=20)]
    assert isinstance(found.schedule.action, ScheduleActionStartWorkflow)
    [argument] = await client.data_converter.decode(list(found.schedule.action.args), [CleanupSpec])
    assert argument == changed.argument


async def test_workers_that_start_at_once_do_no_harm(client: Client, wanted: Declared) -> None:
    await asyncio.gather(*(keep(client, [wanted]) for _ in range(5)))
    _, found = await there(client, wanted)
    assert found.schedule.spec.intervals


async def test_a_schedule_that_overlaps_itself_skips_and_by_hand_it_is_said(site: Site, client: Client) -> None:
    """A sweep that waits for its second look is not joined by another one, whoever starts it."""
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    spec = CleanupSpec(environment=site.environment, grace_s=1, between_s=3600)
    [usual] = declared([site.environment])
    often = replace(usual, argument=spec, every=timedelta(seconds=1), jitter=timedelta(milliseconds=1))
    await upsert(client, often)
    handle, _ = await there(client, often)
    try:
        async with asyncio.timeout(30):
            while (found := await handle.describe()).info.num_actions_skipped_overlap < 3:
                await asyncio.sleep(0.1)
        [going_on] = await running(client, names.FLEET_CLEANUP, site.environment)
        assert going_on.startswith(often.id)
        assert len(found.info.running_actions) == 1
        with pytest.raises(SweepGoingOn) as refused:
            await cleanup(client, spec, lambda _: None)
        assert refused.value.info.field == going_on
    finally:
        await handle.delete()
        for workflow_id in await running(client, names.FLEET_CLEANUP, site.environment):
            await client.get_workflow_handle(workflow_id).terminate()
    assert site.undone == []


async def test_by_hand_two_at_once_are_refused_too(site: Site, client: Client) -> None:
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    spec = CleanupSpec(environment=site.environment, grace_s=1, between_s=3)
    said: list[str] = []
    first = asyncio.ensure_future(cleanup(client, spec, lambda now: said.append(now.stage)))
    async with asyncio.timeout(20):
        while "waiting for the second look" not in said:
            await asyncio.sleep(0.05)
    with pytest.raises(SweepGoingOn) as refused:
        await cleanup(client, spec, lambda _: None)
    assert refused.value.info.field == names.cleanup_workflow_id(site.environment)
    report = await first
    assert report.counts == {Action.FREED: 1}
