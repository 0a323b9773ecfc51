"""Pools and hosts by the SDK, asynchronous and synchronous: typed answers, and errors that a service can tell apart."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest

from paddock.client import Host, Paddock, Pool, sync
from paddock.client import hosts as hosts_module
from paddock.client import pool as pool_module
from paddock.client.errors import BadSpec, ClientError, NoSuchSandbox
from paddock.client.hosts import HostEnded, HostInfo, NoSuchHost
from paddock.client.pool import NoSuchPool
from paddock.contracts import names
from paddock.contracts.ground import Choice, HostReport
from paddock.contracts.pool import PoolSize, PoolStatus
from paddock.contracts.report import Gone
from tests.workflows.conftest import client
from tests.workflows.grounds import Ground
from tests.workflows.pools import ground, quick, serving, where

__all__ = ["client", "ground", "quick"]


@pytest.fixture
async def paddock(ground: Ground) -> AsyncIterator[Paddock]:
    async with Paddock.connect(ground.address) as here:
        yield here


async def listed(paddock: Paddock, ground: Ground, all_: bool, *hosts: str) -> list[HostInfo]:
    """What is listed, once it is these hosts in this order: Temporal's index is a moment late."""
    async with asyncio.timeout(20):
        while True:
            found = [one async for one in paddock.hosts(ground.environment, all_)]
            if [one.host for one in found] == list(hosts):
                return found
            await asyncio.sleep(0.05)


async def test_a_pool_is_seen_and_set_and_its_host_is_drained(paddock: Paddock, ground: Ground) -> None:
    await serving(await ground.pool("small", minimum=1, maximum=2), 1)
    async with asyncio.timeout(20):
        while ground.environment not in [pool.environment async for pool in paddock.pools()]:
            await asyncio.sleep(0.05)
    pool = paddock.pool(ground.environment)
    assert isinstance(pool, Pool)
    status = await pool.status()
    assert isinstance(status, PoolStatus)
    assert (await pool.set(minimum=0, idle_s=3600)).size == PoolSize(minimum=0, maximum=2, idle_s=3600)
    [seen] = status.hosts
    host = paddock.host(ground.environment, seen.host)
    assert isinstance(host, Host)
    [info] = await listed(paddock, ground, False, seen.host)
    assert (info.state, info.slots, info.by_pool, info.ended) == ("ready", 2, True, None)
    assert await host.status() == info
    assert await host.made()
    assert await host.report() is None
    await host.drain(reason="enough", wait_s=0)
    report = await asyncio.wait_for(host.result(), 30)
    assert report == await host.report()
    assert (report.state, report.why, {one.gone for one in report.receipts}) == ("gone", "enough", {Gone.PROVED})
    assert ground.cloud.held == {}
    assert await host.made(), "also of one that has ended"
    assert (await host.status()).state == "gone"
    assert await listed(paddock, ground, False) == []
    [over] = await listed(paddock, ground, True, seen.host)
    assert (over.state, over.used, over.ended is None) == ("gone", 0, False)


async def test_the_synchronous_twin_does_the_same(ground: Ground) -> None:
    await serving(await ground.pool("small", minimum=1, maximum=1), 1)
    box = await ground.sandbox()  # it goes on for longer than anybody waits, unless it is stopped
    await where(box)

    def work() -> tuple[list[str], PoolStatus, HostInfo, HostReport]:
        with sync.Paddock.connect(ground.address) as paddock:
            pools = [pool.environment for pool in paddock.pools()]
            pool = paddock.pool(ground.environment)
            name = pool.status().hosts[0].host
            size = pool.set(minimum=0)
            [listed] = [one for one in paddock.hosts(ground.environment) if one.host == name]
            host = paddock.host(ground.environment, name)
            assert (host.status().state, host.made(), host.report()) == ("ready", True, None)
            host.drain(wait_s=0, reason="by a program")
            return pools, size, listed, host.result()

    pools, size, listed, report = await asyncio.wait_for(asyncio.to_thread(work), 60)
    assert ground.environment in pools
    assert size.size.minimum == 0
    assert (listed.environment, listed.host) == (ground.environment, report.host)
    assert (report.why, {one.gone for one in report.receipts}) == ("by a program", {Gone.PROVED})
    assert (await box.result()).reason == "the host drains: by a program"


@pytest.mark.parametrize(
    ("one", "other"),
    [(pool_module.Pool, sync.Pool), (hosts_module.Host, sync.Host)],
    ids=["Pool", "Host"],
)
def test_every_public_name_has_its_twin_with_the_same_arguments(one: type, other: type) -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        members = inspect.getmembers(kind, callable)
        return {name: [*inspect.signature(m).parameters] for name, m in members if not name.startswith("_")}

    assert surface(one) == surface(other) != {}


async def test_errors_of_pools_can_be_told_apart(paddock: Paddock, ground: Ground) -> None:
    for call in (paddock.pool("nowhere").status(), paddock.pool("nowhere").set(minimum=1)):
        with pytest.raises(NoSuchPool, match="there is no pool of nowhere") as wrong:
            await call
        assert not isinstance(wrong.value, NoSuchSandbox)
        assert wrong.value.info.field == "pool/nowhere"
    pool = await ground.pool("small", maximum=2)
    for change, field in (({"maximum": -1}, "maximum"), ({"biggest": 1}, "biggest")):
        with pytest.raises(BadSpec) as bad:
            await paddock.pool(ground.environment).set(**change)
        assert bad.value.info.field == field
    assert (await paddock.pool(ground.environment).status()).size == PoolSize(maximum=2)
    await pool.terminate()
    with pytest.raises(NoSuchPool, match="has ended"):
        await paddock.pool(ground.environment).set(maximum=3)


async def test_errors_of_hosts_can_be_told_apart(paddock: Paddock, ground: Ground) -> None:
    absent = paddock.host(ground.environment, "nobody")
    for call in (absent.status(), absent.made(), absent.drain(), absent.report(), absent.result()):
        with pytest.raises(NoSuchHost, match="there is no host nobody") as wrong:
            await call
        assert not isinstance(wrong.value, HostEnded)
    with pytest.raises(BadSpec, match="an environment's name"):
        await anext(paddock.hosts('x" OR "'))
    ground.unproved.add("bad")
    failed = await ground.order("bad", host="h-bad")
    with pytest.raises(Exception, match="Workflow execution failed"):
        await asyncio.wait_for(failed.result(), 30)
    host = paddock.host(ground.environment, "h-bad")
    with pytest.raises(HostEnded, match="has ended: failed"):
        await host.drain()
    assert (await host.status()).state == "failed"
    report = await host.result()
    assert report.grown
    [tried] = report.grown.tried
    assert (tried.choice, tried.kind, tried.why) == (
        Choice(size="bad", zone="zone-a"),
        "no-proof",
        "the guest did not boot",
    )
    assert {one.gone for one in tried.receipts} == {Gone.PROVED}


async def test_what_ended_without_a_report_says_so(paddock: Paddock, ground: Ground) -> None:
    handle = await ground.order("small")
    await ground.until(handle, "ready")
    await handle.terminate()
    for name, words in (("h-1", "its workflow was terminated"), ("j-1", "its workflow was cancelled")):
        if name == "j-1":
            await ground.say_joined(name, 0)
            joined = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, name))
            await ground.until(joined, "unreachable", "ready")
            await joined.cancel()
        with pytest.raises(ClientError, match=words) as wrong:
            await asyncio.wait_for(paddock.host(ground.environment, name).result(), 30)
        assert "paddock fleet cleanup" in wrong.value.info.remedy


async def test_a_machine_that_nobody_ordered_is_refused_and_that_can_be_read(paddock: Paddock, ground: Ground) -> None:
    await ground.say_joined("stranger", 3)
    with pytest.raises(ClientError, match="machine 3 of host stranger was ordered by nobody"):
        await asyncio.wait_for(paddock.host(ground.environment, "stranger").result(), 30)
