"""An idle sandbox is paused, and is awake before anything is asked of it, whatever the moment."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from paddock.supervisor.idle import Idle

SOON = 0.01


class Vm:
    """A VM that refuses what no VMM should be told, and takes its time for the rest."""

    def __init__(self) -> None:
        self.running = True
        self.busy = False
        self.log: list[str] = []
        self.takes_s = 0.0

    async def pause(self) -> None:
        await self._turn("pause", True)

    async def resume(self) -> None:
        await self._turn("resume", False)

    async def _turn(self, word: str, expected: bool) -> None:
        assert not self.busy, f"{word} while another command is under way"
        assert self.running is expected, f"{word} of a VM that is so already"
        self.busy = True
        await asyncio.sleep(self.takes_s)
        self.busy, self.running = False, not expected
        self.log.append(word)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def vm() -> Vm:
    return Vm()


@pytest.fixture
async def idle(vm: Vm) -> AsyncIterator[Idle]:
    async def restored() -> None:
        assert vm.running
        vm.log.append("restored")

    made = Idle(cast(Any, vm), restored, SOON)
    yield made
    made.close()


async def test_nobody_inside_for_a_while_means_paused(idle: Idle, vm: Vm) -> None:
    idle.begin()
    await until(lambda: idle.paused)
    assert vm.log == ["pause"]


async def test_whoever_comes_finds_it_awake_and_told_of_the_time(idle: Idle, vm: Vm) -> None:
    idle.begin()
    await until(lambda: idle.paused)
    async with idle.awake():
        assert vm.running
        assert vm.log == ["pause", "resume", "restored"]


async def test_it_is_never_paused_with_somebody_inside(idle: Idle, vm: Vm) -> None:
    async with idle.awake(), idle.awake():
        await asyncio.sleep(5 * SOON)
        assert vm.running
    async with idle.awake():
        await asyncio.sleep(5 * SOON)
        assert vm.running
    await until(lambda: idle.paused)


async def test_who_comes_while_it_is_being_paused_waits_and_finds_it_awake(idle: Idle, vm: Vm) -> None:
    vm.takes_s = 0.05
    idle.begin()
    await until(lambda: vm.busy)
    async with idle.awake():
        assert vm.running
    assert vm.log == ["pause", "resume", "restored"]


async def test_two_who_come_at_once_wake_it_once(idle: Idle, vm: Vm) -> None:
    vm.takes_s = 0.02
    idle.begin()
    await until(lambda: idle.paused)

    async def visit() -> None:
        async with idle.awake():
            assert vm.running

    await asyncio.gather(visit(), visit(), visit())
    assert vm.log == ["pause", "resume", "restored"]


async def test_a_sandbox_that_could_not_be_told_the_time_is_told_it_by_the_next(vm: Vm) -> None:
    told: list[str] = []

    async def restored() -> None:
        told.append("asked")
        if len(told) == 1:
            raise TimeoutError("the guest did not answer")

    idle = Idle(cast(Any, vm), restored, SOON)
    idle.begin()
    await until(lambda: idle.paused)
    with pytest.raises(TimeoutError):
        async with idle.awake():
            pass
    async with idle.awake():
        assert vm.running
    assert told == ["asked", "asked"]
    idle.close()


async def test_any_order_of_visits_leaves_it_right(idle: Idle, vm: Vm) -> None:
    vm.takes_s = 0.001
    dice = random.Random(20261125)

    async def visitor() -> None:
        for _ in range(30):
            await asyncio.sleep(dice.uniform(0, 3 * SOON))
            async with idle.awake():
                assert vm.running
                await asyncio.sleep(dice.uniform(0, SOON))
                assert vm.running

    await asyncio.gather(*(visitor() for _ in range(3)))
    await until(lambda: idle.paused)
    assert not vm.running


async def test_a_closed_one_pauses_nothing_any_more(idle: Idle, vm: Vm) -> None:
    async with idle.awake():
        idle.close()
    await asyncio.sleep(5 * SOON)
    assert vm.log == []
