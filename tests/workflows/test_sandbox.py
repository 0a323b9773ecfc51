"""The `Sandbox` workflow on a real server: what it answers. What happens to its steps: test_every_step.py."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.worker import Worker

from paddock.contracts import names
from paddock.contracts.hosts import Attach
from paddock.contracts.report import Outcome, SandboxReport
from paddock.contracts.spec import OutputGlob, SandboxSpec, TaskSpec
from paddock.contracts.status import Status
from tests.workflows.conftest import ENVIRONMENT, UNREADABLE, World
from workflows.sandbox import Sandbox

DOS = ("reserve_slot", "boot_sandbox", "attach_policy", "run_task", "collect_outputs")
UNDO_OF = {"reserve_slot": "release_slot", "boot_sandbox": "destroy_vm", "attach_policy": "revoke_credentials"}
UNDOS = (*UNDO_OF.values(), "seal_audit")
NONSENSE: tuple[object, ...] = ("all is well", ["gone"], None, *UNREADABLE)
TASK = TaskSpec(argv=("true",))
SPEC = SandboxSpec(environment=ENVIRONMENT, task=TASK, outputs=(OutputGlob(glob="*"),))
Handle = WorkflowHandle[object, SandboxReport]


async def start(client: Client, spec: object = SPEC) -> Handle:
    return await client.start_workflow(
        names.SANDBOX, spec, id=f"any-{uuid.uuid4()}", task_queue=names.CONTROL_QUEUE, result_type=SandboxReport
    )


async def report_of(handle: Handle) -> SandboxReport:
    try:
        return await handle.result()
    except WorkflowFailureError as failure:
        return SandboxReport.model_validate(failure.cause.details[0])  # type: ignore[union-attr]


def check_all_is_undone(world: World, report: SandboxReport) -> None:
    """`no_later_do_begins_after_the_end`, `every_receipt_is_present`, nothing is held."""
    assert world.held == set()
    begun = [name for name in world.calls if name in UNDO_OF]
    undone = [name for name in world.calls if name in UNDO_OF.values()]
    assert undone == [UNDO_OF[name] for name in reversed(begun)]
    if undone:
        first_undo = min(world.calls.index(name) for name in undone)
        assert not [name for name in world.calls[first_undo:] if name in DOS]
    if "boot_sandbox" in begun:
        assert world.calls.index("seal_audit") == world.calls.index("release_slot") - 1
    resources = {"release_slot": "slot", "destroy_vm": "vm", "revoke_credentials": "credential"}
    assert {receipt.resource for receipt in report.receipts} >= {resources[name] for name in undone}


async def test_a_sandbox_goes_all_the_way_and_back(world: World, client: Client) -> None:
    report = await report_of(await start(client))
    assert report.outcome is Outcome.SUCCEEDED
    assert report.audit.verified
    assert [name for name in world.calls if name in DOS] == list(DOS)
    check_all_is_undone(world, report)


async def test_a_failed_task_is_a_completed_workflow(world: World, client: Client) -> None:
    world.exit = 3
    report = await (await start(client)).result()
    assert (report.outcome, report.task.exit if report.task else None) == (Outcome.FAILED, 3)


async def test_a_session_runs_one_task_after_another_and_refuses_a_second_at_once(world: World, client: Client) -> None:
    world.slow = "run_task"
    handle = await start(client, SandboxSpec(environment=ENVIRONMENT))
    assert await handle.execute_update("run", TASK, result_type=int) == 1
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("run", TASK, result_type=int)
    assert "one task at a time" in str(refused.value.cause)
    await handle.execute_update("wait", 1)
    assert await handle.execute_update("run", TASK, result_type=int) == 2
    report = await handle.execute_update("stop", "done", result_type=SandboxReport)
    assert report.outcome is Outcome.STOPPED
    check_all_is_undone(world, report)


async def test_the_lease_ends_a_session_that_nobody_renews(world: World, client: Client) -> None:
    handle = await start(client, SandboxSpec(environment=ENVIRONMENT, lifetime_s=30))
    report = await report_of(handle)
    assert report.outcome is Outcome.LEASE_ENDED
    check_all_is_undone(world, report)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"no_such_field": 1}, "no_such_field"),
        ({"lifetime_s": "soon"}, "lifetime_s"),
        ({"shape": {"memory_mib": 1}}, "memory_mib"),
        ("a string", "SandboxSpec"),
    ],
)
async def test_bad_input_fails_the_run_at_once_with_words(
    world: World, client: Client, bad: object, words: str
) -> None:
    handle = await start(client, bad)
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(handle.result(), 10)
    assert words in str(failure.value.cause)
    assert world.calls == []


async def test_without_a_free_slot_the_sandbox_is_refused_with_what_to_do(world: World, client: Client) -> None:
    spec = SandboxSpec(environment="nowhere", task=TASK, place_timeout_s=1)
    report = await report_of(await start(client, spec))
    assert report.outcome is Outcome.REFUSED
    assert report.error
    assert report.error.kind == "no-slot"
    assert report.error.remedy
    assert world.calls == ["resolve_policy"]


async def test_a_lost_sandbox_ends_as_lost_with_receipts(world: World, client: Client) -> None:
    world.slow = "run_task"
    handle = await start(client)
    await asyncio.wait_for(world.entered("run_task").wait(), 20)
    await handle.signal("sandbox_lost", "the VMM died")
    report = await report_of(handle)
    assert report.outcome is Outcome.SANDBOX_LOST
    check_all_is_undone(world, report)


async def test_extending_moves_the_lease_on_the_host_and_signs_the_policy_for_it(world: World, client: Client) -> None:
    handle = await start(client, SandboxSpec(environment=ENVIRONMENT, lifetime_s=60))
    await handle.execute_update("run", TASK)
    await handle.execute_update("wait", 1)
    before = await handle.query("status", result_type=Status)
    after = await handle.execute_update("extend", 600, result_type=Status)
    assert before.lease_end
    assert after.lease_end
    assert after.lease_end > before.lease_end
    assert world.calls.count("extend_lease") == 1
    assert world.calls.count("resolve_policy") == world.calls.count("attach_policy") == 2
    world.calls.remove("attach_policy")
    check_all_is_undone(world, await handle.execute_update("stop", "done", result_type=SandboxReport))


async def test_a_sandbox_whose_audit_does_not_verify_does_not_end_well(world: World, client: Client) -> None:
    world.verified = False
    report = await report_of(await start(client))
    assert report.outcome is Outcome.ERROR
    assert report.error
    assert report.error.kind == "audit-broken"
    check_all_is_undone(world, report)


@pytest.fixture
async def control(client: Client) -> AsyncIterator[None]:
    async with Worker(client, task_queue=names.CONTROL_QUEUE, workflows=[Sandbox], activities=[World().resolve_policy]):
        yield


async def lied_to(client: Client, liar: str, answer: object) -> tuple[World, SandboxReport]:
    """A sandbox on a host where this activity takes effect, and then answers once what nobody can read."""
    environment, world, told = f"e-{uuid.uuid4().hex[:12]}", World(host="liar-1"), [answer]

    @activity.defn(name=liar)
    async def lie(argument: dict[str, Any]) -> Any:
        about = Attach.model_validate(argument) if liar == "attach_policy" else argument
        honest = await getattr(world, liar)(about)
        return told.pop() if told else honest

    async with AsyncExitStack() as stack:
        for queue, work in (
            (names.slots_queue(environment), DOS[:1]),
            (names.host_queue(environment, world.host), DOS[1:]),
            (names.host_control_queue(environment, world.host), UNDOS),
        ):
            given = [lie if name == liar else getattr(world, name) for name in work]
            await stack.enter_async_context(Worker(client, task_queue=queue, activities=given))
        handle = await start(client, SPEC.model_copy(update={"environment": environment}))
        return world, await asyncio.wait_for(report_of(handle), 40)


async def every(client: Client, lies: list[tuple[str, object]]) -> list[tuple[str, World, SandboxReport]]:
    """All of them side by side; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        told = [group.create_task(lied_to(client, *lie)) for lie in lies]
    return [(liar, *one.result()) for (liar, _), one in zip(lies, told, strict=True)]


async def test_a_do_whose_answer_cannot_be_read_undoes_everything(control: None, client: Client) -> None:
    lies = [(liar, answer) for liar in DOS for answer in NONSENSE]
    for liar, world, report in await asyncio.wait_for(every(client, lies), 60):
        assert report.outcome is Outcome.ERROR
        assert report.error
        assert report.error.kind == "internal"
        assert "malformed" in report.error.message
        if liar == "reserve_slot":  # whose slot it may be is not known: the promise lapses by itself
            assert (world.held, [one.resource for one in report.receipts]) == ({"slot"}, ["slot"])
        else:
            check_all_is_undone(world, report)


async def test_an_undo_whose_answer_cannot_be_read_is_asked_again(control: None, client: Client) -> None:
    lies = [(liar, answer) for liar in UNDOS for answer in NONSENSE]
    for liar, world, report in await asyncio.wait_for(every(client, lies), 60):
        assert report.outcome is Outcome.SUCCEEDED
        assert report.audit.verified
        assert world.calls.count(liar) == 2
        world.calls.remove(liar)
        check_all_is_undone(world, report)
