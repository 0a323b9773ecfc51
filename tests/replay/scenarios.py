"""Every way through a workflow that is recorded: one function each, one command of a caller after the other.

Whatever could come in either order is held apart by the script, so that a scenario always gives the same commands.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

from temporalio.client import WorkflowUpdateFailedError

from paddock.contracts import hosts, names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.policies import PolicyDocument
from paddock.contracts.report import Gone, TaskResult
from paddock.contracts.spec import OutputGlob
from paddock.contracts.streams import LateCaller
from tests.replay.stage import ACCEPTED, KEY, TASK, Handle, Stage, refused, scenario
from tests.replay.world import ENVIRONMENT, HOST, broken, receipts
from workflows import steps

OUTPUTS: Final = (OutputGlob(glob="*"),)
DOS: Final = ("reserve_slot", "boot_sandbox", "attach_policy", "run_task", "collect_outputs")
SANDBOX, HOSTS, ROLLOUT, LATE = names.SANDBOX, names.HOST, names.POLICY_ROLLOUT, names.LATE_READER


# Sandbox: all the way, and sessions


@scenario(SANDBOX, "all-the-way")
async def all_the_way(stage: Stage) -> Handle:
    return await stage.over(await stage.sandbox(TASK, outputs=OUTPUTS))


@scenario(SANDBOX, "defaults")
async def defaults(stage: Stage) -> Handle:
    """As the Temporal UI's empty box starts it; there is no host in its environment."""
    handle = await stage.start(SANDBOX)
    await stage.until(handle, "placing")
    await handle.execute_update("stop", "enough")
    return await stage.over(handle)


@scenario(SANDBOX, "session")
async def session(stage: Stage) -> Handle:
    """Tasks one after another, a second caller, a longer lease."""
    handle = await stage.ready()
    await handle.execute_update("attach", KEY)
    await stage.run(handle)
    await stage.run(handle, waited=False)
    await handle.execute_update("attach", KEY)
    await handle.execute_update("extend", 7200)
    await stage.run(handle)
    await handle.execute_update("stop", "done")
    return await stage.over(handle)


@scenario(SANDBOX, "session-asked-while-it-starts")
async def asked_early(stage: Stage) -> Handle:
    """Every update before the sandbox is placed: each waits for its moment."""
    stage.script.hold.add("reserve_slot")
    handle = await stage.sandbox()
    await stage.entered("reserve_slot")
    for name, argument in (("attach", KEY), ("run", TASK), ("wait", 1), ("extend", 7200)):
        await handle.start_update(name, argument, wait_for_stage=ACCEPTED)
    stage.script.hold.add("boot_sandbox")
    stage.script.hold.add("allow_caller")
    stage.script.hold.add("extend_lease")
    stage.script.release("reserve_slot")
    for name in ("boot_sandbox", "allow_caller", "extend_lease"):
        await stage.entered(name)
    stage.script.release("allow_caller")
    await answered(handle, 2)
    stage.script.release("extend_lease")
    await answered(handle, 3)
    stage.script.release("boot_sandbox")
    await stage.until(handle, "ready")
    await handle.execute_update("stop", "done")
    return await stage.over(handle)


async def answered(handle: Handle, count: int) -> None:
    """Until this many updates have been answered."""
    async with asyncio.timeout(60):
        while True:
            events = (await handle.fetch_history()).events
            done = sum(e.HasField("workflow_execution_update_completed_event_attributes") for e in events)
            if done >= count:
                return
            await asyncio.sleep(0.05)


@scenario(SANDBOX, "task-failed")
async def task_failed(stage: Stage) -> Handle:
    stage.script.answers["run_task"] = [hosts.TaskDone(result=TaskResult(exit=3))]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "lease-ended", slow=True)
async def lease_ended(stage: Stage) -> Handle:
    return await stage.over(await stage.sandbox(lifetime_s=30))


@scenario(SANDBOX, "idle-ended", slow=True)
async def idle_ended(stage: Stage) -> Handle:
    return await stage.over(await stage.sandbox(idle_s=30))


@scenario(SANDBOX, "longest", live=False)
async def longest(stage: Stage) -> Handle:
    """The longest session that is allowed, each task by a caller of its own who also waits for its end."""
    handle = await stage.ready(lifetime_s=86400, idle_s=86400)
    for number in itertools.count(1):
        await handle.execute_update("attach", f"{number:043d}=")
        try:
            await stage.run(handle)
        except WorkflowUpdateFailedError as refused:
            assert "history is full" in str(refused.cause)
            break
    await handle.execute_update("stop", "done")
    return await stage.over(handle)


# Sandbox: ended in the middle of each step, by stop and by cancel


def ending(where: str, how: str) -> Callable[[Stage], Awaitable[Handle]]:
    async def play(stage: Stage) -> Handle:
        stage.script.hold.add(where)
        handle = await stage.sandbox(TASK, outputs=OUTPUTS)
        await stage.entered(where)
        if how == "stop":
            await handle.start_update("stop", "enough", wait_for_stage=ACCEPTED)
        else:
            await handle.cancel()
        return await stage.over(handle)

    return play


for _where in DOS:
    for _how in ("stop", "cancel"):
        scenario(SANDBOX, f"{_how}-in-{_where.replace('_', '-')}")(ending(_where, _how))


@scenario(SANDBOX, "cancel-while-ready")
async def cancel_while_ready(stage: Stage) -> Handle:
    handle = await stage.ready()
    await handle.cancel()
    return await stage.over(handle)


# Sandbox: steps that fail, and refusals


def failing(where: str) -> Callable[[Stage], Awaitable[Handle]]:
    async def play(stage: Stage) -> Handle:
        stage.script.answers[where] = [broken(where)]
        return await stage.over(await stage.sandbox(TASK, outputs=OUTPUTS))

    return play


for _where in DOS:
    scenario(SANDBOX, f"fails-in-{_where.replace('_', '-')}")(failing(_where))


@scenario(SANDBOX, "bad-input")
async def bad_input(stage: Stage) -> Handle:
    return await stage.over(await stage.start(SANDBOX, {"no_such_field": 1}))


@scenario(SANDBOX, "unknown-policy")
async def unknown_policy(stage: Stage) -> Handle:
    info = ErrorInfo(kind=ErrorKind.UNKNOWN_POLICY, message="no policy of this name")
    stage.script.answers["resolve_policy"] = [broken("resolve_policy", info)]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "refused-by-the-host")
async def refused_by_the_host(stage: Stage) -> Handle:
    info = ErrorInfo(kind=ErrorKind.UNKNOWN_IMAGE, message="no image of this name")
    stage.script.answers["reserve_slot"] = [hosts.Placed(host=HOST, error=info)]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "no-slot")
async def no_slot(stage: Stage) -> Handle:
    return await stage.over(await stage.sandbox(TASK, environment="nowhere", place_timeout_s=1))


@scenario(SANDBOX, "host-full-at-first")
async def full_at_first(stage: Stage) -> Handle:
    stage.script.answers["reserve_slot"] = [hosts.Placed(host=HOST, full=True)]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "malformed-answer")
async def malformed(stage: Stage) -> Handle:
    stage.script.answers["boot_sandbox"] = [{"parts_ms": "no numbers"}]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "malformed-undo")
async def malformed_undo(stage: Stage) -> Handle:
    stage.script.answers["destroy_vm"] = [{"receipts": 5}]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "extension-refused")
async def extension_refused(stage: Stage) -> Handle:
    info = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message="the host allows no longer lease")
    stage.script.answers["extend_lease"] = [broken("extend_lease", info)]
    handle = await stage.ready()
    await refused(handle.execute_update("extend", 7200))
    await handle.execute_update("stop", "done")
    return await stage.over(handle)


# Sandbox: losses, and receipts that do not come at once


@scenario(SANDBOX, "sandbox-lost")
async def sandbox_lost(stage: Stage) -> Handle:
    stage.script.hold.add("run_task")
    handle = await stage.sandbox(TASK)
    await stage.entered("run_task")
    await handle.signal("sandbox_lost", "the VMM died")
    return await stage.over(handle)


@scenario(SANDBOX, "host-lost-and-back")
async def host_lost_and_back(stage: Stage) -> Handle:
    handle = await stage.ready()
    stage.script.hold.add("revoke_credentials")
    await handle.signal("host_lost", "it does not answer")
    await stage.entered("revoke_credentials")
    stage.script.release("revoke_credentials")
    return await stage.over(handle)


@scenario(SANDBOX, "host-gone")
async def host_gone(stage: Stage) -> Handle:
    handle = await stage.ready()
    stage.script.hold.add("revoke_credentials")
    await handle.signal("host_lost", "it does not answer")
    await stage.entered("revoke_credentials")
    await handle.signal("host_gone", "the provider's complete list lacks it")
    return await stage.over(handle)


@scenario(SANDBOX, "host-lost-until-every-deadline", slow=True)
async def host_lost_deadlines(stage: Stage) -> Handle:
    handle = await stage.ready(lifetime_s=30)
    stage.script.hold.add("revoke_credentials")
    await handle.signal("host_lost", "it does not answer")
    return await stage.over(handle)


@scenario(SANDBOX, "unproved-at-first")
async def unproved(stage: Stage) -> Handle:
    stage.script.answers["revoke_credentials"] = [receipts(steps.FENCE, Gone.UNPROVED)]
    return await stage.over(await stage.sandbox(TASK))


@scenario(SANDBOX, "audit-broken")
async def audit_broken(stage: Stage) -> Handle:
    stage.script.answers["seal_audit"] = [hosts.Sealed.model_validate({"audit": {"verified": False}})]
    return await stage.over(await stage.sandbox(TASK))


# PolicyRollout, LateReader


@scenario(ROLLOUT, "stored")
async def stored(stage: Stage) -> Handle:
    return await stage.over(await stage.start(ROLLOUT, PolicyDocument(text="name: p")))


@scenario(ROLLOUT, "refused")
async def policy_refused(stage: Stage) -> Handle:
    info = ErrorInfo(kind=ErrorKind.BAD_POLICY, message="line 1: no rules")
    stage.script.answers["store_policy"] = [broken("store_policy", info)]
    return await stage.over(await stage.start(ROLLOUT, PolicyDocument(text="name: p")))


@scenario(LATE, "let-in")
async def let_in(stage: Stage) -> Handle:
    caller = LateCaller(environment=ENVIRONMENT, host=HOST, sandbox_id="sb-" + "0" * 20, caller_key=KEY)
    return await stage.over(await stage.start(LATE, caller))
