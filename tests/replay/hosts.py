"""Scenarios of `Host`: it joins, is lost, comes back or is ended, leaves. Its time-outs are the real ones."""

from contextlib import AsyncExitStack

from paddock.contracts import hosts, names
from tests.replay.stage import Handle, Stage, scenario
from tests.replay.world import ENVIRONMENT

HOST = names.HOST


async def joined(stage: Stage) -> tuple[Handle, str]:
    """A host that said that it is there; its own name is the scenario's."""
    host = stage.id.rpartition("/")[2]
    spec = hosts.HostSpec(environment=ENVIRONMENT, host=host, slots=2)
    return await stage.start(HOST, spec, start_signal="joined", start_signal_args=[spec]), host


@scenario(HOST, "joins-and-leaves")
async def joins_and_leaves(stage: Stage) -> Handle:
    handle, host = await joined(stage)
    async with stage.world.serve(names.host_control_queue(ENVIRONMENT, host)):
        await stage.entered("hold_host")
        await handle.signal("leave")
        return await stage.over(handle)


@scenario(HOST, "lost-and-back", slow=True)
async def lost_and_back(stage: Stage) -> Handle:
    handle, host = await joined(stage)
    stage.script.hold.add("tell_sandboxes")
    async with AsyncExitStack() as up:
        await up.enter_async_context(stage.world.serve(names.host_control_queue(ENVIRONMENT, host)))
        await stage.entered("hold_host")
    await stage.until(handle, "unreachable")
    await stage.entered("tell_sandboxes")
    await stage.handled(handle, "fence_host")
    async with stage.world.serve(names.host_control_queue(ENVIRONMENT, host)):
        await stage.until(handle, "ready")
        await stage.entered("hold_host")
        await handle.signal("leave")
        return await stage.over(handle)


@scenario(HOST, "lost-and-leaves", slow=True)
async def lost_and_leaves(stage: Stage) -> Handle:
    handle, _ = await joined(stage)
    stage.script.hold.add("tell_sandboxes")
    await stage.until(handle, "unreachable")
    await stage.entered("tell_sandboxes")
    await stage.handled(handle, "fence_host")
    await handle.signal("leave")
    return await stage.over(handle)


@scenario(HOST, "lost-and-ended-by-its-provider", slow=True)
async def lost_and_ended(stage: Stage) -> Handle:
    handle, _ = await joined(stage)
    stage.script.answers["fence_host"] = [hosts.Fenced(gone=True, checked_by="the provider's complete list lacks it")]
    stage.script.hold |= {"fence_host"}
    await stage.until(handle, "unreachable")
    await stage.entered("tell_sandboxes")
    stage.script.release("fence_host")
    return await stage.over(handle)
