"""The traps of Temporal that this lifecycle has to know, each a sentence: cancels, answers, and what comes together."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.running import beating
from paddock.contracts import hosts, names
from paddock.contracts.report import Gone, Outcome, SandboxReport, TaskResult
from paddock.contracts.spec import SandboxSpec
from tests.workflows.conftest import World as PlayedHost
from tests.workflows.harness.invariants import Ended, check
from tests.workflows.harness.stage import TASK, Run, Stage
from tests.workflows.harness.world import Fault
from worker import host as host_worker
from workflows.sandbox import Sandbox

Deed = Callable[[Run], Awaitable[None]]
KEY = "A" * 43 + "="


# Cancel


async def test_a_cancel_that_an_activity_swallows_still_begins_no_later_step(here: Stage) -> None:
    async with here.run("swallowed", faults={"boot": Fault.HOLD_DEAF}) as run:
        await run.inside("boot")
        await run.cancel()
        run.world.note("told")
        ended = await run.until_ended()
    assert check(ended).outcome is Outcome.CANCELLED
    assert "fence" not in {line.move for line in ended.lines}


async def test_an_undo_waits_until_its_cancelled_do_is_really_over(here: Stage) -> None:
    async with here.run("patient", faults={"boot": Fault.HOLD_DEAF}) as run:
        await run.inside("boot")
        await run.cancel()
        ended = await run.until_ended()
    check(ended)
    assert ended.index("answered", "boot") < ended.index("begun", "undo_boot")


async def test_a_slot_whose_reservation_was_cancelled_before_it_answered_lapses(here: Stage) -> None:
    async with here.run("lapse", faults={"place": Fault.HOLD}) as run:
        await run.inside("place")
        await run.cancel()
        ended = await run.until_ended()
    report = check(ended)
    assert "begun" not in {line.what for line in ended.lines if line.move == "undo_place"}
    [slot] = report.receipts
    assert (slot.resource, slot.gone) == ("slot", Gone.PROVED)
    assert "lapses by its lease" in slot.checked_by


async def test_a_refusal_that_swallows_the_end_is_not_asked_again(here: Stage) -> None:
    async with here.run("full", faults={"place": Fault.FULL}) as run:
        await run.inside("place")
        await run.cancel()
        run.world.note("told")
        ended = await run.until_ended()
    assert check(ended).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("first", [Run.cancel, Run.stop], ids=["cancelled", "stopped"])
async def test_a_second_and_a_third_cancel_do_not_reach_the_cleanup(here: Stage, first: Deed) -> None:
    """The server passes on one cancel a run, so what was stopped before is cancelled in the middle of its cleanup."""
    async with here.run("thrice", faults={"run": Fault.HOLD, "undo_fence": Fault.HOLD}) as run:
        await run.inside("run")
        await first(run)
        await run.until_said("inside", "undo_fence")
        for _ in range(2):
            await run.cancel()
        run.release("undo_fence")
        ended = await run.until_ended()
    assert check(ended).outcome is (Outcome.CANCELLED if first is Run.cancel else Outcome.STOPPED)
    assert ended.events.count("EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED") == 1


async def test_a_cancel_reaches_a_running_task_within_a_second(client: Client) -> None:
    """With the host worker's own throttle and the activities' own heartbeat."""
    environment, told = "throttle", asyncio.Event()
    played = PlayedHost(host="t-1")

    async def run_task(run: hosts.RunTask) -> hosts.TaskDone:
        async with beating(run.task):
            played.entered("run_task").set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.set()
                raise
        return hosts.TaskDone(result=TaskResult(exit=0))

    slow = activity.defn(name="run_task")(run_task)
    throttle = {
        "max_heartbeat_throttle_interval": host_worker.QUICK,
        "default_heartbeat_throttle_interval": host_worker.QUICK,
    }
    control = Worker(client, task_queue="throttle", workflows=[Sandbox], activities=[played.resolve_policy])
    slots = Worker(client, task_queue=names.slots_queue(environment), activities=[played.reserve_slot])
    host = Worker(
        client,
        task_queue=names.host_queue(environment, "t-1"),
        activities=[played.boot_sandbox, played.attach_policy, slow],
        **throttle,  # type: ignore[arg-type]
    )
    ctl = Worker(
        client,
        task_queue=names.host_control_queue(environment, "t-1"),
        activities=[played.release_slot, played.destroy_vm, played.revoke_credentials, played.seal_audit],
    )
    latencies = []
    async with control, slots, host, ctl:
        for n in range(5):
            told.clear()
            played.inside.clear()
            handle = await client.start_workflow(
                names.SANDBOX, {"environment": environment, "task": TASK}, id=f"throttle-{n}", task_queue="throttle"
            )
            await asyncio.wait_for(played.entered("run_task").wait(), 30)
            await asyncio.sleep(0.1 * n)  # anywhere between two heartbeats
            before = time.monotonic()
            await handle.cancel()
            await asyncio.wait_for(told.wait(), 30)
            latencies.append(time.monotonic() - before)
            await handle.result()
    assert sorted(latencies)[2] <= 1.0, latencies
    assert max(latencies) <= 4.0, latencies  # a loaded machine


# Two things in one workflow task


def in_one_task(events: tuple[str, ...], one: str, other: str) -> bool:
    """Whether two such events arrived in the same workflow task, in this order."""
    seen: set[str] = set()
    for event in events:
        if event == "EVENT_TYPE_WORKFLOW_TASK_STARTED":
            seen.clear()
        elif event == f"EVENT_TYPE_{other}" and f"EVENT_TYPE_{one}" in seen:
            return True
        seen.add(event)
    return False


async def answer(run: Run) -> None:
    run.release("run")
    await run.until_said("answered", "run")
    await run.until_server_knows()


async def lost(run: Run) -> None:
    await run.handle.signal("sandbox_lost", "the VMM died")


@pytest.mark.parametrize(
    ("first", "second", "names_"),
    [
        (answer, Run.cancel, ("ACTIVITY_TASK_COMPLETED", "WORKFLOW_EXECUTION_CANCEL_REQUESTED")),
        (Run.cancel, answer, ("WORKFLOW_EXECUTION_CANCEL_REQUESTED", "ACTIVITY_TASK_COMPLETED")),
        (lost, Run.cancel, ("WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_CANCEL_REQUESTED")),
        (Run.cancel, lost, ("WORKFLOW_EXECUTION_CANCEL_REQUESTED", "WORKFLOW_EXECUTION_SIGNALED")),
        (answer, lost, ("ACTIVITY_TASK_COMPLETED", "WORKFLOW_EXECUTION_SIGNALED")),
        (lost, answer, ("WORKFLOW_EXECUTION_SIGNALED", "ACTIVITY_TASK_COMPLETED")),
    ],
    ids=lambda one: getattr(one, "__name__", None) or "then",
)
async def test_what_arrives_together_is_never_swallowed(
    here: Stage, first: Deed, second: Deed, names_: tuple[str, str]
) -> None:
    async with here.run("together", faults={"run": Fault.HOLD}, own_control=True) as run:
        await run.inside("run")
        assert run.control
        await run.control.end()
        await first(run)
        await second(run)
        if answer not in (first, second):
            run.release("run")
        run.world.note("told")
        run.start_control()
        ended = await run.until_ended()
    assert in_one_task(ended.events, *names_)
    report = check(ended)
    assert report.outcome in (Outcome.CANCELLED, Outcome.SANDBOX_LOST)
    if answer in (first, second) and lost in (first, second):
        assert report.outcome is Outcome.SANDBOX_LOST


async def test_a_cancel_beside_the_timer_of_the_lease_is_not_swallowed(here: Stage) -> None:
    async def play(*deeds: Deed) -> Ended:
        async with here.run("timer", faults={"run": Fault.HOLD}, own_control=True) as run:
            await run.start(lifetime_s=30)
            await run.until_said("inside", "run")
            assert run.control
            await run.control.end()
            for deed in deeds:
                await deed(run)
            run.world.note("told")
            run.start_control()
            return await run.until_ended()

    behind, before = await asyncio.gather(play(fired, Run.cancel), play(Run.cancel, fired))
    assert in_one_task(behind.events, "TIMER_FIRED", "WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    assert in_one_task(before.events, "WORKFLOW_EXECUTION_CANCEL_REQUESTED", "TIMER_FIRED")
    for ended in (behind, before):
        assert check(ended).outcome in (Outcome.CANCELLED, Outcome.LEASE_ENDED)


async def fired(run: Run) -> None:
    """Until the server's timer fired; no other is set while the task runs."""
    async with asyncio.timeout(60):
        while EventType.EVENT_TYPE_TIMER_FIRED not in {
            event.event_type for event in (await run.handle.fetch_history()).events
        }:
            await asyncio.sleep(0.2)


# Answers


async def test_stop_and_cancel_complete_the_workflow_with_its_report(here: Stage) -> None:
    for end in (Run.stop, Run.cancel):
        async with here.run("completes", faults={"run": Fault.HOLD}) as run:
            await run.inside("run")
            await end(run)
            ended = await run.until_ended()
            assert (await run.handle.describe()).status is WorkflowExecutionStatus.COMPLETED
        assert check(ended).outcome is (Outcome.STOPPED if end is Run.stop else Outcome.CANCELLED)


async def test_cancelled_before_it_booted_it_is_cancelled_and_its_empty_chain_is_no_error(client: Client) -> None:
    """Placed, and no worker of the host takes the boot: nothing was recorded, so that nothing can verify."""
    environment, played = "not-booted", PlayedHost(host="n-1", verified=False, events=0)
    control = Worker(client, task_queue="not-booted", workflows=[Sandbox], activities=[played.resolve_policy])
    slots = Worker(client, task_queue=names.slots_queue(environment), activities=[played.reserve_slot])
    ctl = Worker(
        client,
        task_queue=names.host_control_queue(environment, "n-1"),
        activities=[played.release_slot, played.destroy_vm, played.revoke_credentials, played.seal_audit],
    )
    async with control, slots, ctl:
        handle = await client.start_workflow(
            Sandbox.run, SandboxSpec(environment=environment), id="not-booted", task_queue="not-booted"
        )
        async with asyncio.timeout(20):
            while not (await handle.query(Sandbox.status)).host:
                await asyncio.sleep(0.05)
        await handle.cancel()
        report = await asyncio.wait_for(handle.result(), 20)
    assert (report.outcome, report.error) == (Outcome.CANCELLED, None)
    assert report.receipts


async def test_a_failure_carries_the_report_in_its_details(here: Stage) -> None:
    async with here.run("fails", faults={"boot": Fault.BREAK_AFTER}) as run:
        await run.start()
        with pytest.raises(WorkflowFailureError) as failed:
            await run.handle.result()
        check(await run.until_ended())
    assert isinstance(failed.value.cause, ApplicationError)
    report = SandboxReport.model_validate(failed.value.cause.details[0])
    assert (report.outcome, failed.value.cause.type) == (Outcome.ERROR, "error")
    assert report.receipts


async def test_a_policy_that_cannot_be_resolved_fails_with_a_report_too(here: Stage) -> None:
    """A failed local activity raises its bare cause, and no ActivityError around it."""
    async with here.run("unknown", faults={"admit": Fault.BREAK_BEFORE}) as run:
        await run.start()
        assert check(await run.until_ended()).outcome is Outcome.ERROR


async def test_an_update_after_the_end_is_an_rpc_error(here: Stage) -> None:
    async with here.run("late") as run:
        await run.start()
        check(await run.until_ended())
        with pytest.raises(RPCError, match="already completed"):
            await run.handle.execute_update("stop", "too late")


async def test_a_rejected_update_has_words(here: Stage) -> None:
    async with here.run("rejected", faults={"run": Fault.HOLD}) as run:
        await run.inside("run")
        with pytest.raises(WorkflowUpdateFailedError) as rejected:
            await run.handle.execute_update("extend", 1)
        assert "lifetime_s: 1 is outside 30 to" in str(rejected.value.cause)
        run.release("run")
        check(await run.until_ended())


async def test_every_handler_is_finished_before_the_end(here: Stage) -> None:
    async with here.run("handlers", faults={"run": Fault.HOLD, "allow_caller": Fault.HOLD}) as run:
        await run.inside("run")
        attaching = asyncio.ensure_future(run.handle.execute_update("attach", KEY))
        await run.until_said("inside", "allow_caller")
        await run.stop()
        await run.until_said("answered", "undo_place")
        assert (await run.handle.describe()).status is WorkflowExecutionStatus.RUNNING
        run.release("allow_caller")
        ended = await run.until_ended()
        assert (await attaching)["host"] == "h1"
    assert check(ended).outcome is Outcome.STOPPED
