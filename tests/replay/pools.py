"""Scenarios of `HostPool`: it grows, shrinks, meets its maximum, is told another size, and is closed."""

import asyncio

from paddock.contracts import names
from paddock.contracts.ground import Choice
from paddock.contracts.pool import PoolHost, PoolSize, PoolSpec, PoolView
from tests.replay.stage import Handle, Stage, scenario

POOL = names.HOST_POOL


async def pool(stage: Stage, size: PoolSize) -> Handle:
    """A pool that looks only when it is told to; its environment's name is the scenario's."""
    environment = stage.id.rpartition("/")[2]
    choices = (Choice(size="small", zone="zone-a"), Choice(size="large", zone="zone-a"))
    return await stage.start(POOL, PoolSpec(environment=environment, choices=choices, size=size, look_s=3600))


@scenario(POOL, "grows")
async def grows(stage: Stage) -> Handle:
    stage.script.answers["view_pool"] = [PoolView(waiting=1)]
    handle = await pool(stage, PoolSize(maximum=1))
    await stage.handled(handle, "view_pool")
    await handle.signal("close")
    return await stage.over(handle)


@scenario(POOL, "shrinks")
async def shrinks(stage: Stage) -> Handle:
    """One second of idle time, then another look drains the host, which is gone by then."""
    ready = PoolHost(host="h-1", state="ready", slots=8)
    stage.script.answers["view_pool"] = [PoolView(hosts=(ready,))] * 2
    handle = await pool(stage, PoolSize(maximum=1, idle_s=1))
    await stage.handled(handle, "view_pool")
    await asyncio.sleep(1.2)
    await handle.signal("changed")
    async with asyncio.timeout(20):
        while "superfluous" not in (await handle.query("status"))["did"]:
            await asyncio.sleep(0.05)
    await handle.signal("close")
    return await stage.over(handle)


@scenario(POOL, "at-its-maximum")
async def at_its_maximum(stage: Stage) -> Handle:
    stage.script.answers["view_pool"] = [PoolView(waiting=1)] * 3
    handle = await pool(stage, PoolSize(maximum=0))
    await stage.handled(handle, "view_pool")
    await handle.execute_update("set", PoolSize(minimum=0, maximum=0, idle_s=60))
    await handle.signal("close")
    return await stage.over(handle)
