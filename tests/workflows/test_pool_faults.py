"""A pool when something fails: bad words, hosts that are lost, looks that fail, workers that are restarted."""

import asyncio
import threading
from datetime import UTC, datetime
from itertools import chain

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError, WorkflowAlreadyStartedError

from activities.pool import view_pool
from paddock.contracts import names
from paddock.contracts.ground import Choice
from paddock.contracts.pool import Avoided, PoolHost, PoolMemory, PoolSize, PoolSpec, PoolStatus, PoolView
from tests.workflows.grounds import Ground
from tests.workflows.pools import (
    SMALL,
    end,
    ground,
    looks,
    ordered,
    quick,
    report,
    serving,
    status_when,
    stop,
    until,
    where,
)
from worker.control import RUNNER
from workflows import pool as pool_module

__all__ = ["ground", "quick"]


async def test_a_run_that_goes_on_as_another_forgets_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_EVENTS", 1)  # each look in a run of its own
    ground.silent.add("small")  # it stays on its way
    avoided = Avoided(choice=Choice(size="large", zone="zone-a"), until=datetime(2100, 1, 1, tzinfo=UTC), why="broken")
    pool = await ground.pool("large", "small", memory=PoolMemory(avoided=(avoided,)), minimum=1, boot_s=600, look_s=0.1)
    await until(lambda: bool(ground.cloud.orders))
    await pool.signal("avoid", args=[SMALL, "no-proof"])
    said = await looks(pool, 3)
    assert {(one.choice.size, one.why) for one in said.avoided} == {("large", "broken"), ("small", "no-proof")}
    assert ordered(ground) == ["small"], "what it did a moment ago is known to the next run"
    assert said.did.startswith("1 more")
    assert (await pool.describe()).run_id != pool.first_execution_run_id
    await pool.signal("close")
    assert (await asyncio.wait_for(pool.result(), 10)).environment == ground.environment, "nor that it is to end"
    await end(ground)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "environment\n  Field required"),
        ({"environment": 'e" OR "1"="1', "choices": [{"size": "small"}]}, "String should match pattern"),
        ({"environment": "e", "choices": []}, "at least 1 item"),
        ({"environment": "e", "choices": [{"size": "small"}], "size": {"minimum": 9}}, "more than maximum 1"),
        ({"environment": "e", "choices": [{"size": "small"}], "lifetime_s": 700}, "lifetime_s 700 must be more than"),
    ],
)
async def test_a_bad_argument_fails_the_run_at_once_in_words(
    ground: Ground, given: dict[str, object], words: str
) -> None:
    pool = await ground.client.start_workflow(
        names.HOST_POOL, given, id=names.pool_workflow_id(ground.environment), task_queue=names.CONTROL_QUEUE
    )
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(pool.result(), 10)
    assert words in str(raised.value.cause)


async def test_an_environment_has_one_pool(ground: Ground) -> None:
    await ground.pool("small")
    with pytest.raises(WorkflowAlreadyStartedError):
        await ground.pool("small")
    other = await ground.client.start_workflow(
        names.HOST_POOL,
        PoolSpec(environment=ground.environment, choices=(SMALL,)),
        id=f"second-{ground.environment}",
        task_queue=names.CONTROL_QUEUE,
    )
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(other.result(), 10)
    assert f"is the workflow pool/{ground.environment}" in str(raised.value.cause)


async def test_a_host_that_does_not_answer_is_replaced_and_ended(ground: Ground) -> None:
    pool = await ground.pool("small", minimum=1, maximum=2)
    await serving(pool, 1)
    [lost] = ground.machines()
    ground.kill(lost)
    await until(lambda: len(ground.cloud.orders) == 2 and lost not in ground.machines(), within_s=60)
    said = await serving(pool, 1)
    assert [one.host for one in said.hosts if one.state == "ready"] == ground.machines()
    await report(ground, lost)


async def test_a_host_that_ended_since_the_look_does_not_stop_the_pool(client: Client, quick: None) -> None:
    ground, shown = Ground(client), chain([PoolView(hosts=(PoolHost(host="ghost", state="ready", slots=2),))] * 3)

    @activity.defn(name="view_pool")
    async def view(environment: str) -> PoolView:
        return next(shown, PoolView()) if environment == ground.environment else PoolView()

    ground.view = view
    async with ground.up():
        pool = await ground.pool("small", idle_s=1, look_s=1)
        said = await status_when(pool, lambda said: "ghost" in said.did)
        assert said.did.startswith("superfluous since")
        after = await looks(pool, 2)
        assert (after.hosts, after.finding) == ((), "")
        failed = [event for event in (await pool.fetch_history()).events
                  if event.HasField("signal_external_workflow_execution_failed_event_attributes")]  # fmt: skip
        assert len(failed) == 1, "the signal reached nobody"


async def test_an_old_host_is_replaced_before_its_cloud_ends_it(client: Client, quick: None) -> None:
    ground, old = Ground(client), set[str]()

    @activity.defn(name="view_pool")
    async def view(environment: str) -> PoolView:
        seen = await view_pool(environment)
        aged = (one.model_copy(update={"age_s": 85_000.0 * (one.host in old)}) for one in seen.hosts)
        return seen.model_copy(update={"hosts": tuple(aged)})

    ground.view = view
    async with ground.up():
        pool = await ground.pool("small", minimum=1, maximum=2, drain_wait_s=1200, boot_s=600)
        box = await ground.sandbox()
        first = await where(box)
        old.add(first)
        await until(lambda: first in ground.closed)
        said = await status_when(pool, lambda said: any(one.state == "draining" for one in said.hosts))
        assert {one.state for one in said.hosts} == {"ready", "draining"}, "its successor serves already"
        assert said.did == f"near the end of its lifetime: {first}"
        assert await where(await ground.sandbox()) != first
        assert await where(box) == first, "who is on it may end by itself"
        await stop(box)
        await until(lambda: first not in ground.machines())
        assert len(ground.cloud.orders) == 2


async def test_a_host_that_the_index_does_not_show_yet_is_not_ordered_again(client: Client, quick: None) -> None:
    ground = Ground(client)

    @activity.defn(name="view_pool")
    async def view(environment: str) -> PoolView:
        return PoolView(waiting=1)

    ground.view = view
    async with ground.up():
        pool = await ground.pool("small", maximum=5, look_s=0.1)
        said = await looks(pool, 3)
        assert (said.coming, len(ground.cloud.orders)) == (2, 1)


async def test_a_look_that_fails_is_a_finding_and_the_next_one_is_tried(client: Client, quick: None) -> None:
    ground = Ground(client)
    answers: list[object] = [ApplicationError("no index", non_retryable=True), {"hosts": 5}, PoolView(waiting=0)]

    @activity.defn(name="view_pool")
    async def view(environment: str) -> object:
        if environment != ground.environment:
            return PoolView()
        said = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    ground.view = view
    async with ground.up():
        pool = await ground.pool("small", look_s=1)
        await status_when(pool, lambda said: said.finding == "the look failed: no index")
        await status_when(pool, lambda said: "validation error" in said.finding)
        await status_when(pool, lambda said: said.finding == "" and said.looked_at is not None)


async def test_a_control_worker_that_is_restarted_in_the_middle_makes_nothing_twice(
    client: Client, quick: None
) -> None:
    ground = Ground(client)
    ground.cloud.hold = threading.Event()
    async with ground.up(control=False):
        async with ground.control():
            pool = await ground.pool("small", maximum=3, idle_s=1)
            boxes = [await ground.sandbox() for _ in range(2)]
            await until(lambda: bool(ground.cloud.orders))
        ground.cloud.hold.set()  # the machine is made while no control worker is there
        await until(lambda: len(ground.machines()) == 1)
        async with ground.control():
            assert {await where(box) for box in boxes} == set(ground.machines())
        async with ground.control():
            await stop(*boxes)
            await until(lambda: not ground.cloud.held)
            assert len(ground.cloud.orders) == 1
            assert (await status_when(pool, lambda said: not said.hosts)).finding == ""


async def test_the_sdks_own_sandbox_runs_it_as_the_control_worker_does(client: Client) -> None:
    async with Ground(client).up(runner=RUNNER) as ground:
        pool = await ground.pool("small", maximum=2, idle_s=600)
        box = await ground.sandbox()
        await where(box)
        await stop(box)
        await pool.execute_update("set", PoolSize(maximum=2, idle_s=1), result_type=PoolStatus)
        await until(lambda: not ground.cloud.held, within_s=60)
        assert len(ground.cloud.orders) == 1


async def test_a_sandbox_waits_as_before_where_there_is_no_pool(ground: Ground) -> None:
    box = await ground.sandbox(place_timeout_s=3)
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(box.result(), 15)
    assert "no slot" in str(raised.value.cause) or "within 3 s" in str(raised.value.cause)
    events = (await box.fetch_history()).events
    failed = [event for event in events if event.HasField("signal_external_workflow_execution_failed_event_attributes")]
    assert len(failed) == 1, "it did call, and nobody was there"
    assert not [event for event in events if event.HasField("workflow_task_failed_event_attributes")]


async def test_a_pool_that_is_cancelled_leaves_its_hosts(ground: Ground) -> None:
    pool = await ground.pool("small", minimum=1)
    await serving(pool, 1)
    await pool.cancel()
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(pool.result(), 10)
    assert isinstance(raised.value.cause, CancelledError)
    [host] = ground.machines()
    handle = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, host))
    assert await handle.query("status") == "ready"


async def test_a_cancel_that_comes_with_a_drain_is_not_lost(client: Client, quick: None) -> None:
    """The signal that tells a host to drain swallows a cancel of its caller."""
    ground = Ground(client)

    @activity.defn(name="view_pool")
    async def view(environment: str) -> PoolView:
        if environment == ground.environment and looked.is_set():
            await client.get_workflow_handle(names.pool_workflow_id(environment)).cancel()
        looked.set()
        return PoolView(hosts=(PoolHost(host="ghost", state="ready", slots=2),))

    looked = asyncio.Event()
    ground.view = view
    async with ground.up():
        pool = await ground.pool("small", idle_s=1, look_s=1.5)
        with pytest.raises(WorkflowFailureError) as raised:
            await asyncio.wait_for(pool.result(), 15)
        assert isinstance(raised.value.cause, CancelledError)
