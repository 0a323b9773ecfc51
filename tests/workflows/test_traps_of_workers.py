"""The traps of workers that evict, shut down, are not there yet, or never hear of the end."""

import asyncio
import os
import signal
import time

import pytest
from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import TerminatedError
from temporalio.worker import Replayer

from paddock.contracts.report import Outcome
from paddock.temporal.plugin import plugin
from tests.workflows.harness.invariants import check, nothing_is_undone_twice
from tests.workflows.harness.plan import REAL
from tests.workflows.harness.stage import Run, Stage
from tests.workflows.harness.world import Fault, held
from workflows.sandbox import Sandbox

STARTED = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
NOISE = ("GeneratorExit", "was never retrieved", "Task was destroyed", "Traceback", "deadlock", "TMPRL1")


@pytest.mark.parametrize("cached", [0, 1])
async def test_an_eviction_while_it_ends_undoes_nothing_twice(here: Stage, cached: int) -> None:
    """Three sandboxes at different undos on one worker that caches fewer: each wakes in another's place."""
    undos = ("undo_fence", "undo_boot", "undo_place")
    async with here.run("evicted", faults={undos[0]: Fault.HOLD}, cached=cached) as one:
        more = [
            Run(here, f"evicted-{cached}-{undo}", REAL, one.control_queue, one.environment, {}) for undo in undos[1:]
        ]
        runs = (one, *more)
        for run, undo in zip(runs, undos, strict=True):
            run.world.plan(undo, Fault.HOLD)
            await run.start()
            await run.until_said("inside", undo)
        for run, undo in zip(runs, undos, strict=True):
            await run.handle.query("status")
            await run.cancel()  # it lands in the cleanup of a workflow that was evicted a moment ago
            run.release(undo)
        for run in runs:
            ended = await run.until_ended()
            check(ended)
            nothing_is_undone_twice(ended)
        assert one.control
        noise = [line for line in one.control.log.read_text().splitlines() if any(word in line for word in NOISE)]
        assert not noise


async def test_a_history_replays_after_eviction(here: Stage) -> None:
    async with here.run("replayed", faults={"run": Fault.HOLD, "undo_boot": Fault.HOLD}, cached=0) as run:
        await run.inside("run")
        await run.stop()
        await run.until_said("inside", "undo_boot")
        replayer = Replayer(workflows=[Sandbox], plugins=[plugin()])
        open_ = await replayer.replay_workflow(await run.handle.fetch_history())
        assert open_.replay_failure is None
        run.release("undo_boot")
        check(await run.until_ended())
        await replayer.replay_workflow(await run.handle.fetch_history())


async def test_workers_that_shut_down_in_the_middle_of_an_end_leave_it_to_the_next(here: Stage) -> None:
    async with here.run("handover", faults={"undo_boot": Fault.HOLD}, own_control=True, own_host=True) as run:
        await run.start()
        await run.until_said("inside", "undo_boot")
        assert run.control
        assert run.host
        await run.control.end(signal.SIGTERM)
        await run.host.end(signal.SIGTERM)
        run.start_control()
        run.start_host()
        ended = await run.until_ended()
    assert check(ended).outcome is Outcome.SUCCEEDED
    assert [line.what for line in ended.lines if line.move == "undo_boot"].count("begun") == 2


async def test_a_start_without_any_control_worker_waits_and_then_runs(here: Stage) -> None:
    async with here.run("patience", own_control=True) as run:
        assert run.control
        await run.control.end()
        await run.start()
        await asyncio.sleep(0.5)
        assert (await run.handle.describe()).status is WorkflowExecutionStatus.RUNNING
        assert run.world.lines() == ()
        run.start_control()
        assert check(await run.until_ended()).outcome is Outcome.SUCCEEDED


async def test_a_workflow_task_in_the_hands_of_a_killed_worker_is_given_on_in_seconds(here: Stage) -> None:
    async with here.run("in-its-hands", faults={"run": Fault.HOLD}, own_control=True) as run:
        await run.inside("run")
        assert run.control
        os.kill(run.control.pid, signal.SIGSTOP)
        await run.cancel()
        async with asyncio.timeout(30):
            while (await run.handle.describe()).raw_description.pending_workflow_task.state != STARTED:
                await asyncio.sleep(0.02)
        begun = time.monotonic()
        await run.control.end()
        run.start_control()
        await run.until_undoing()
        took = time.monotonic() - begun
        run.release("run")
        check(await run.until_ended())
    assert took < 7, "it waited for the ten seconds that a server gives a workflow task by default"


async def test_terminate_runs_no_code_and_everything_stays_for_the_sweep(here: Stage) -> None:
    async with here.run("terminated", faults={"run": Fault.HOLD}) as run:
        await run.inside("run")
        before = set(held(run.world.lines()))
        await run.handle.terminate("from the UI")
        with pytest.raises(WorkflowFailureError) as gone:
            await run.handle.result()
        assert isinstance(gone.value.cause, TerminatedError)
        run.release("run")
        await run.until(lambda: run.world.said("answered", "run") or run.world.said("cancelled", "run"))
        lines = run.world.lines()
    assert not [line for line in lines if line.move.startswith("undo_")]
    assert set(held(lines)) == before >= {"vm", "credential", "slot"}
