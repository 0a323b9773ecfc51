"""A pool on a real server and a played cloud: machines come with the demand and go behind it, and nothing is billed."""

import asyncio
from datetime import UTC, datetime
from itertools import repeat

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError

from paddock.contracts import names
from paddock.contracts.ground import Choice
from paddock.contracts.pool import PoolSize, PoolSpec, PoolStatus
from paddock.contracts.report import Outcome
from paddock.contracts.status import Status
from providers.contract import ErrorClass, ProviderError
from tests.workflows.grounds import Ground
from tests.workflows.pools import (
    SMALL,
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
from worker.environment import start_pool

__all__ = ["ground", "quick"]

NONE_LEFT = ProviderError(ErrorClass.CAPACITY, "none left", code="InsufficientCapacity")
LIMIT = ProviderError(ErrorClass.QUOTA, "ask for more", code="Limit")


async def test_from_nothing_to_what_is_needed_and_back_to_nothing(ground: Ground) -> None:
    pool = await ground.pool("small", maximum=5, idle_s=2)
    await looks(pool, 1)
    assert ground.cloud.orders == [], "nobody needs a machine"
    boxes = [await ground.sandbox() for _ in range(5)]
    places = [await where(box) for box in boxes]
    assert len(ground.cloud.orders) == 3, "five sandboxes fit into three machines of two slots"
    assert set(places) == set(ground.machines())
    said = await status_when(pool, lambda said: sum(one.used for one in said.hosts) == 5)
    assert (said.waiting, said.free, said.coming, said.finding) == (0, 1, 0, "")
    await stop(*boxes)
    await until(lambda: not ground.cloud.held)
    for host in set(places):
        assert (await report(ground, host)).why.startswith("superfluous since")
    assert ground.closed == set(places), "each was closed before it went"
    assert (await status_when(pool, lambda said: not said.hosts)).did.startswith("superfluous since")
    assert len(ground.cloud.orders) == 3, "and nothing was made behind it"


async def test_a_sandbox_that_waits_calls_the_pool(ground: Ground) -> None:
    pool = await ground.pool("small", look_s=3600)
    await status_when(pool, lambda said: said.looked_at is not None)
    assert await where(await ground.sandbox()) in ground.machines()


async def test_the_minimum_is_there_and_stays_when_nobody_needs_it(ground: Ground) -> None:
    pool = await ground.pool("small", minimum=2, maximum=3, idle_s=1)
    before = ground.machines() if await serving(pool, 2) else []
    assert (await looks(pool, 4)).finding == ""
    assert (ground.machines(), len(ground.cloud.orders), ground.closed) == (before, 2, set())


async def test_slots_are_kept_free_for_those_who_come_next(ground: Ground) -> None:
    pool = await ground.pool("small", maximum=3, free_slots=2, idle_s=600)
    await serving(pool, 1)
    await where(await ground.sandbox())
    await serving(pool, 2)
    assert (await looks(pool, 2)).free == 3


async def test_at_its_maximum_it_says_who_waits_and_a_free_slot_is_used_again(ground: Ground) -> None:
    pool = await ground.pool("small", maximum=1, idle_s=600)
    boxes = [await ground.sandbox() for _ in range(3)]
    said = await status_when(pool, lambda said: said.waiting == 1 and said.coming == 0 and said.free == 0)
    assert said.finding == "1 sandboxes wait, and the pool may not have more than 1 hosts"
    assert len(ground.cloud.orders) == 1
    waiting = [box for box in boxes if (await box.query("status", result_type=Status)).state == "placing"]
    [late] = waiting
    await stop(next(box for box in boxes if box is not late))
    assert await where(late) in ground.machines()
    assert (await status_when(pool, lambda said: not said.waiting)).finding == ""


async def test_a_bad_size_is_refused_in_words_and_a_good_one_acts_at_once(ground: Ground) -> None:
    pool = await ground.pool("small", maximum=0, look_s=3600)
    bad: list[tuple[dict[str, int], str]] = [
        ({"minimum": 3, "maximum": 2}, "minimum 3 is more than maximum 2"),
        ({"maximum": -1}, "greater than or equal to 0"),
        ({"maximal": 7}, "Extra inputs are not permitted"),
    ]
    for size, words in bad:
        with pytest.raises(WorkflowUpdateFailedError) as raised:
            await asyncio.wait_for(pool.execute_update("set", size), 10)
        assert words in str(raised.value.cause)
    good = PoolSize(minimum=1, maximum=2)
    told = await pool.execute_update("set", good, result_type=PoolStatus)
    assert told.size == good
    await until(lambda: len(ground.machines()) == 1, within_s=10)


async def test_what_has_no_capacity_is_left_alone_and_the_next_is_used(ground: Ground) -> None:
    ground.cloud.refuse["small"] = [NONE_LEFT] * 9
    pool = await ground.pool("small", "large", minimum=1, maximum=3, capacity_s=600)
    said = await serving(pool, 1)
    assert [(one.choice, one.why) for one in said.avoided] == [(SMALL, "capacity")]
    await pool.execute_update("set", PoolSize(minimum=2, maximum=3), result_type=PoolStatus)
    await serving(pool, 2)
    assert ordered(ground) == ["small", "large", "large"]


async def test_what_had_no_capacity_is_tried_again_after_its_time(ground: Ground) -> None:
    ground.cloud.refuse["small"] = [NONE_LEFT]
    pool = await ground.pool("small", minimum=1, capacity_s=3, avoid_s=600)
    said = await status_when(pool, lambda said: bool(said.finding))
    [avoided] = said.avoided
    when = avoided.until.isoformat(timespec="seconds")
    assert said.finding.startswith("every choice failed lately (small zone-a: none left (InsufficientCapacity)")
    assert said.finding.endswith(f"the next is tried at {when}")
    await serving(pool, 1)
    assert ordered(ground) == ["small", "small"]
    assert min(order.attempt for order in ground.cloud.orders) == 1
    assert datetime.now(UTC) >= avoided.until


async def test_what_a_person_must_mend_is_a_finding_and_not_tried_at_every_look(ground: Ground) -> None:
    ground.cloud.refuse["small"] = list(repeat(LIMIT, 99))
    pool = await ground.pool("small", minimum=1, look_s=0.2)
    said = await status_when(pool, lambda said: bool(said.finding))
    assert "small zone-a: ask for more (Limit)" in said.finding
    await looks(pool, 3)
    assert ordered(ground) == ["small"]
    assert ground.cloud.held == {}


async def test_a_choice_is_not_blamed_for_a_worker_that_is_away(ground: Ground) -> None:
    pool = await ground.pool("small")
    await pool.signal("avoid", args=[SMALL, "no-worker"])
    await pool.signal("avoid", args=[Choice(size="other"), "never-joined"])
    said = await status_when(pool, lambda said: bool(said.avoided))
    assert [one.choice.size for one in said.avoided] == ["other"]


async def test_a_closed_pool_leaves_its_hosts(ground: Ground) -> None:
    pool = await ground.pool("small", minimum=1, idle_s=1)
    await serving(pool, 1)
    await pool.signal("close")
    said = await asyncio.wait_for(pool.result(), 10)
    [host] = ground.machines()
    assert [(one.host, one.state) for one in said.hosts] == [(host, "ready")]
    handle = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, host))
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    again = await ground.pool("small", minimum=1)
    assert [one.host for one in (await serving(again, 1)).hosts] == [host], "the next pool knows it"
    await again.execute_update("set", PoolSize(minimum=0, idle_s=1), result_type=PoolStatus)
    await until(lambda: not ground.cloud.held)


async def test_a_closed_pool_stays_closed_when_its_worker_starts_again(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "worker.environment")
    spec = PoolSpec(environment=ground.environment, choices=(SMALL,), size=PoolSize(maximum=0))
    pool = ground.client.get_workflow_handle(names.pool_workflow_id(ground.environment))

    async def started(again: bool = False) -> tuple[str, WorkflowExecutionStatus | None]:
        await start_pool(ground.client, spec, again)
        said = await pool.describe()
        return said.run_id, said.status

    first, status = await started()
    assert (status, await started()) == (WorkflowExecutionStatus.RUNNING, (first, WorkflowExecutionStatus.RUNNING))
    assert "runs already" in caplog.text
    await pool.terminate("by mistake")
    second, status = await started()
    assert (second != first, status) == (True, WorkflowExecutionStatus.RUNNING), "nobody closed it"
    await pool.signal("close")
    await asyncio.wait_for(pool.result(), 10)
    caplog.clear()
    assert await started() == (second, WorkflowExecutionStatus.COMPLETED)
    assert "was closed, and stays so; this worker's --open-pool opens it again" in caplog.text
    third, status = await started(again=True)
    assert (third != second, status) == (True, WorkflowExecutionStatus.RUNNING)


async def test_a_host_that_joined_by_itself_is_used_and_never_drained(ground: Ground) -> None:
    other = await ground.order("large", host="own")
    await ground.until(other, "ready")
    pool = await ground.pool("small", maximum=3, idle_s=1)
    boxes = [await ground.sandbox() for _ in range(3)]
    places = [await where(box) for box in boxes]
    assert places.count("own") == 2
    await stop(*boxes)
    await until(lambda: ground.machines() == ["own"])
    assert [one.host for one in (await looks(pool, 3)).hosts] == ["own"]
    assert ground.closed == set(places) - {"own"}


async def test_a_sandbox_that_outstays_a_drain_is_stopped_with_the_reason(ground: Ground) -> None:
    await ground.pool("small", maximum=2, idle_s=1, drain_wait_s=1)
    boxes = [await ground.sandbox() for _ in range(3)]
    places = {box.id: await where(box) for box in boxes}
    crowded = next(host for host in places.values() if list(places.values()).count(host) == 2)
    leaving = next(box for box in boxes if places[box.id] == crowded)
    await stop(leaving)
    one_of = {box.id: asyncio.ensure_future(box.result()) for box in boxes if box is not leaving}
    [over], rest = await asyncio.wait(one_of.values(), return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert over.result().outcome is Outcome.STOPPED
    assert "the host drains: superfluous since" in over.result().reason
    await until(lambda: len(ground.machines()) == 1)
    assert len(rest) == 1, "the other one stays where it is"
    for one in rest:
        one.cancel()
