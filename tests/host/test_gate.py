"""A host asks for placements only while a slot is free and not promised to a poll in flight."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.worker import SlotPermit, SlotReleaseContext

from paddock.host import gate as module
from paddock.host.gate import Gate, PlacementSlots
from paddock.host.slots import Slots

NO_CONTEXT = cast(Any, None)


def made(directory: Path, size: int) -> tuple[Gate, PlacementSlots]:
    gate = Gate(Slots(directory / "slots.json", size))
    return gate, PlacementSlots(gate)


def release(supplier: PlacementSlots, permit: SlotPermit) -> None:
    supplier.release_slot(SlotReleaseContext(slot_info=None, permit=permit))


async def waits(what: Awaitable[object]) -> "asyncio.Future[Any]":
    """Begin `what`, and see that it does not end by itself."""
    begun = asyncio.ensure_future(what)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not begun.done()
    return begun


async def soon(what: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(what, 5)


async def test_as_many_polls_as_free_slots_and_no_more(tmp_path: Path) -> None:
    _, supplier = made(tmp_path, 2)
    first = await soon(supplier.reserve_slot(NO_CONTEXT))
    await soon(supplier.reserve_slot(NO_CONTEXT))
    third = await waits(supplier.reserve_slot(NO_CONTEXT))
    release(supplier, first)
    await soon(third)


async def test_a_full_host_asks_for_nothing_until_a_slot_is_released(tmp_path: Path) -> None:
    gate, supplier = made(tmp_path, 1)
    gate.reserve("sb-1", "w", ())
    poll = await waits(supplier.reserve_slot(NO_CONTEXT))
    assert gate.release("sb-1")
    await soon(poll)


async def test_two_pollers_of_a_host_with_one_slot_place_one_sandbox_after_another(tmp_path: Path) -> None:
    gate, supplier = made(tmp_path, 1)
    other = await soon(supplier.reserve_slot(NO_CONTEXT))
    for number in range(5):
        mine, other = other, await waits(supplier.reserve_slot(NO_CONTEXT))
        again = await waits(supplier.reserve_slot(NO_CONTEXT))  # the SDK polls on before the activity is over
        gate.reserve(f"sb-{number}", "w", ())
        release(supplier, mine)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not other.done()
        assert not again.done()
        gate.release(f"sb-{number}")
        done, _ = await asyncio.wait({other, again}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1, "the slot is free: exactly one of both polls for it"
        (left,) = {other, again} - done
        left.cancel()
        other = done.pop().result()


async def test_a_promise_that_lapses_is_seen_without_a_wake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    now = 1000.0
    slots = Slots(tmp_path / "slots.json", 1, lambda: now)
    gate = Gate(slots)
    slots.reserve("sb-1", "w")
    poll = await waits(PlacementSlots(gate).reserve_slot(NO_CONTEXT))
    now += 1000.0
    await soon(poll)


async def test_a_slot_released_by_a_thread_of_the_sdk_wakes_the_loop(tmp_path: Path) -> None:
    _, supplier = made(tmp_path, 1)
    permit = await soon(supplier.reserve_slot(NO_CONTEXT))
    poll = await waits(supplier.reserve_slot(NO_CONTEXT))
    await asyncio.to_thread(release, supplier, permit)
    await soon(poll)


async def test_a_poll_that_was_given_up_promises_nothing(tmp_path: Path) -> None:
    _, supplier = made(tmp_path, 1)
    permit = await soon(supplier.reserve_slot(NO_CONTEXT))
    given_up = await waits(supplier.reserve_slot(NO_CONTEXT))
    given_up.cancel()
    release(supplier, permit)
    await soon(supplier.reserve_slot(NO_CONTEXT))


def test_nothing_is_placed_eagerly_past_the_gate() -> None:
    assert PlacementSlots(cast(Any, None)).try_reserve_slot(NO_CONTEXT) is None
