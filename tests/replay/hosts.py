"""Scenarios of `Host`: it joins, is lost, comes back or is ended, leaves. Its time-outs are the real ones."""

from contextlib import AsyncExitStack

from temporalio.exceptions import ApplicationError

from paddock.contracts import hosts, names
from paddock.contracts.ground import Choice, DrainSpec, HostState, Machine, Wanted
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


# Machines that are made


async def ordered(stage: Stage, *sizes: str) -> tuple[Handle, str]:
    """A host that is wanted in these sizes, one after the other."""
    host = stage.id.rpartition("/")[2]
    wanted = Wanted(choices=tuple(Choice(size=size, zone="zone-a") for size in sizes))
    return await stage.start(HOST, hosts.HostSpec(environment=ENVIRONMENT, host=host, slots=2, wanted=wanted)), host


async def says(stage: Stage, handle: Handle, host: str, attempt: int) -> None:
    """The first word of an attempt's machine, once the provider is asked for it."""
    await stage.entered("watch_host")
    spec = hosts.HostSpec(environment=ENVIRONMENT, host=host, slots=2, attempt=attempt)
    await handle.signal("joined", spec)


@scenario(HOST, "made-and-drained")
async def made_and_drained(stage: Stage) -> Handle:
    stage.script.hold.add("watch_host")
    handle, host = await ordered(stage, "small")
    async with stage.world.serve(names.host_control_queue(ENVIRONMENT, host)):
        await says(stage, handle, host, 1)
        await stage.entered("hold_host")
        await handle.signal("drain", DrainSpec(reason="not needed", wait_s=0))
        return await stage.over(handle)


@scenario(HOST, "made-at-the-second-choice")
async def made_at_the_second_choice(stage: Stage) -> Handle:
    """No capacity for the first, no proof from the second machine."""
    none_left = ApplicationError("none left", type="capacity", non_retryable=True)
    no_guest = ApplicationError("the guest did not boot", type="boot-failed", non_retryable=True)
    stage.script.answers |= {"create_host": [none_left], "prove_host": [no_guest]}
    stage.script.hold.add("watch_host")
    handle, host = await ordered(stage, "small", "medium", "large")
    async with stage.world.serve(names.host_control_queue(ENVIRONMENT, host)):
        await says(stage, handle, host, 2)
        await says(stage, handle, host, 3)
        await stage.entered("hold_host")
        await handle.signal("drain", DrainSpec(reason="not needed", wait_s=0))
        return await stage.over(handle)


@scenario(HOST, "no-machine")
async def no_machine(stage: Stage) -> Handle:
    """A machine that fails at its provider, and then a quota: a person is told."""
    quota = ApplicationError("ask for more", type="quota", non_retryable=True)
    failed = Machine(name="ph-1", state=HostState.DELETING, why="its disk could not be made")
    usual = Machine(name="ph-1", state=HostState.PENDING)
    stage.script.answers |= {"create_host": [usual, quota], "watch_host": [failed]}
    handle, _ = await ordered(stage, "small", "medium", "large")
    return await stage.over(handle)


@scenario(HOST, "drained-while-it-is-made")
async def drained_while_it_is_made(stage: Stage) -> Handle:
    stage.script.hold.add("create_host")
    handle, _ = await ordered(stage, "small")
    await stage.entered("create_host")
    await handle.signal("drain", DrainSpec(reason="not needed", wait_s=0))
    stage.script.release("create_host")
    return await stage.over(handle)
