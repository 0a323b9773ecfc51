"""What tests of pools share: quick times, and what they wait for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client

from activities import environment as environment_module
from paddock.contracts import names
from paddock.contracts.ground import Choice, DrainSpec, HostReport
from paddock.contracts.pool import PoolStatus
from paddock.contracts.report import Gone, SandboxReport
from paddock.contracts.status import Status
from tests.workflows.grounds import Box, Ground, Pool
from workflows import growth as growth_module
from workflows import host as host_module

SMALL = Choice(size="small", zone="zone-a")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_module, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(growth_module, "ASK_AGAIN_S", 0.2)
    monkeypatch.setattr(host_module, "LOOK_AGAIN", timedelta(seconds=0.2))
    monkeypatch.setattr(host_module, "HEARTBEAT", timedelta(seconds=2))
    monkeypatch.setattr(host_module, "NEW_WORKER", timedelta(seconds=2))
    monkeypatch.setattr(host_module, "TELL_AGAIN", (timedelta(seconds=0.1),))


@pytest.fixture
async def ground(client: Client, quick: None) -> AsyncIterator[Ground]:
    async with Ground(client).up() as here:
        yield here


async def until(true: Callable[[], bool], within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.05)


async def status_when(pool: Pool, true: Callable[[PoolStatus], bool], within_s: float = 30) -> PoolStatus:
    async with asyncio.timeout(within_s):
        while not true(said := await pool.query("status", result_type=PoolStatus)):
            await asyncio.sleep(0.05)
    return said


async def looks(pool: Pool, seconds: float) -> PoolStatus:
    """The pool's word once it has looked again and again for so long."""
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return await status_when(pool, lambda said: said.looked_at is not None and said.looked_at > ends)


async def serving(pool: Pool, hosts: int) -> PoolStatus:
    return await status_when(pool, lambda said: sum(one.state == "ready" for one in said.hosts) == hosts)


async def where(box: Box) -> str:
    async with asyncio.timeout(40):
        while (said := await box.query("status", result_type=Status)).state != "ready":
            await asyncio.sleep(0.05)
    return said.host


async def stop(*boxes: Box) -> None:
    for box in boxes:
        await box.execute_update("stop", "enough", result_type=SandboxReport)


async def report(ground: Ground, host: str) -> HostReport:
    handle = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, host), result_type=HostReport)
    said = await asyncio.wait_for(handle.result(), 30)
    assert said.receipts
    assert {one.gone for one in said.receipts} == {Gone.PROVED}
    return said


def ordered(ground: Ground) -> list[str]:
    return [order.size for order in ground.cloud.orders]


async def end(ground: Ground) -> None:
    """Drain all that is there, as a person would."""
    for host in {item.host for item in ground.cloud.held.values()}:
        handle = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, host))
        await handle.signal("drain", DrainSpec(reason="the end", wait_s=0))
    await until(lambda: not ground.cloud.held)
