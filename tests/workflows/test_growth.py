"""A host's machine: made, proved, drained and ended; what fails on the way is ended first, and tried elsewhere."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from activities import environment as environment_module
from paddock.contracts import names
from paddock.contracts.ground import Choice, DrainSpec, HostReport
from paddock.contracts.hosts import HostSpec
from paddock.contracts.report import Gone, Outcome, SandboxReport
from paddock.contracts.spec import SandboxSpec
from providers.contract import ErrorClass, ProviderError
from tests.workflows.grounds import Ground
from workflows import growth as growth_module
from workflows import host as host_module

NOW = DrainSpec(reason="no longer needed", wait_s=0)


@pytest.fixture
async def ground(client: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    monkeypatch.setattr(environment_module, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(growth_module, "ASK_AGAIN_S", 0.2)
    monkeypatch.setattr(growth_module, "SETTLE_S", 1)
    monkeypatch.setattr(host_module, "LOOK_AGAIN", timedelta(seconds=0.2))
    monkeypatch.setattr(host_module, "LOOK_AT_MOST", timedelta(seconds=0.5))
    monkeypatch.setattr(host_module, "HEARTBEAT", timedelta(seconds=2))
    monkeypatch.setattr(host_module, "NEW_WORKER", timedelta(seconds=2))
    monkeypatch.setattr(host_module, "TELL_AGAIN", (timedelta(seconds=0.1),))
    async with Ground(client).up() as here:
        yield here


def whole(report: HostReport, ground: Ground) -> HostReport:
    """What must be true of every end: nothing is billed, and that is proved."""
    assert ground.cloud.held == {}, "nothing is left at the provider"
    every = [*report.receipts, *(one for tried in report.grown.tried for one in tried.receipts)] if report.grown else []
    assert every
    assert {one.gone for one in every} == {Gone.PROVED}
    return report


async def failure(handle: WorkflowHandle[object, HostReport]) -> tuple[ApplicationError, HostReport]:
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 30)
    cause = raised.value.cause
    assert isinstance(cause, ApplicationError)
    return cause, HostReport.model_validate(cause.details[0])


async def test_a_wanted_host_is_made_proved_drained_and_proved_gone(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    assert ground.proofs == ["small"], "no host is ready before it proved itself"
    [order] = ground.cloud.orders
    assert order.tags["paddock-host"] == "h-1"
    await host.signal("drain", NOW)
    report = whole(await asyncio.wait_for(host.result(), 20), ground)
    assert (report.state, report.why) == ("gone", "no longer needed")
    assert "h-1" in ground.closed, "a host that drains takes no new sandboxes"
    assert {one.resource for one in report.receipts} == {"host", "nic"}
    assert report.grown
    assert {"create", "boot", "prove", "terminate", "prove.guest"} <= set(report.grown.steps_ms)


async def test_no_capacity_is_ended_and_the_next_choice_is_another_attempt(ground: Ground) -> None:
    ground.cloud.refuse["small"] = [ProviderError(ErrorClass.CAPACITY, "none left", code="InsufficientCapacity")]
    host = await ground.order("small", "large")
    await ground.until(host, "ready")
    assert [(one.size, one.attempt) for one in ground.cloud.orders] == [("small", 1), ("large", 2)]
    await host.signal("drain", NOW)
    report = whole(await asyncio.wait_for(host.result(), 20), ground)
    assert report.grown
    [tried] = report.grown.tried
    assert (tried.step, tried.kind, tried.choice.size) == ("create", "capacity", "small")
    assert "InsufficientCapacity" in tried.why
    assert [one.resource for one in tried.receipts] == ["host"], "looked up, and not there"


@pytest.mark.parametrize("kind", [ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID])
async def test_what_a_person_must_mend_is_not_tried_elsewhere(ground: Ground, kind: ErrorClass) -> None:
    ground.cloud.refuse["small"] = [ProviderError(kind, "ask for more", code="Limit")]
    cause, report = await failure(await ground.order("small", "large"))
    assert (cause.type, len(ground.cloud.orders)) == (kind.value, 1)
    assert "ask for more (Limit)" in cause.message
    whole(report, ground)


@pytest.mark.parametrize("kind", [ErrorClass.THROTTLED, ErrorClass.TRANSIENT])
async def test_what_passes_is_tried_again_as_the_same_attempt(ground: Ground, kind: ErrorClass) -> None:
    ground.cloud.refuse["small"] = [ProviderError(kind, "slower", retry_after_s=0.1)] * 3
    host = await ground.order("small")
    await ground.until(host, "ready")
    assert {one.name for one in ground.cloud.orders} == {ground.cloud.orders[0].name}
    assert len(ground.cloud.orders) == 4


async def test_a_lost_answer_makes_no_second_machine(ground: Ground) -> None:
    ground.cloud.lost_answers = 2
    host = await ground.order("small")
    await ground.until(host, "ready")
    assert len([one for one in ground.cloud.held.values() if one.kind == "host"]) == 1


async def test_a_machine_that_fails_at_the_provider_is_ended_with_its_words(ground: Ground) -> None:
    ground.cloud.fails.add("small")
    cause, report = await failure(await ground.order("small"))
    assert cause.type == "machine-failed"
    assert "its disk could not be made" in cause.message
    whole(report, ground)


async def test_a_machine_that_never_joins_is_ended_and_another_is_tried(ground: Ground) -> None:
    ground.silent.add("small")
    host = await ground.order("small", "large", boot_s=5)
    await ground.until(host, "ready")
    assert {one.attempt for one in ground.cloud.held.values()} == {2}, "the silent one is gone"
    await host.signal("drain", NOW)
    report = whole(await asyncio.wait_for(host.result(), 20), ground)
    assert report.grown
    assert [one.kind for one in report.grown.tried] == ["never-joined"]


async def test_a_host_that_cannot_prove_itself_is_ended_and_its_choice_is_avoided(ground: Ground) -> None:
    ground.unproved.add("small")
    host = await ground.order("small", "large")
    await ground.until(host, "ready")
    await host.signal("drain", NOW)
    report = whole(await asyncio.wait_for(host.result(), 20), ground)
    assert report.grown
    [tried] = report.grown.tried
    assert (tried.step, tried.kind) == ("prove", "no-proof")
    assert "did not boot" in tried.why


async def test_the_late_word_of_an_earlier_machine_is_not_taken_for_the_next_one(ground: Ground) -> None:
    ground.silent.add("large")
    ground.unproved.add("small")
    host = await ground.order("small", "large", boot_s=5)
    async with asyncio.timeout(20):
        while len(ground.cloud.orders) < 2:
            await asyncio.sleep(0.05)
    await ground.say_joined("h-1", attempt=1)
    cause, report = await failure(host)
    assert cause.type == "never-joined", "the second machine has not said a word"
    whole(report, ground)


async def test_a_machine_that_nobody_ordered_does_not_become_a_host(ground: Ground) -> None:
    await ground.say_joined("h-9", attempt=3)
    handle = ground.client.get_workflow_handle(names.host_workflow_id(ground.environment, "h-9"))
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 10)
    assert "ordered by nobody" in str(raised.value.cause)


@pytest.mark.parametrize("how", ["drain", "cancel"])
@pytest.mark.parametrize("where", ["create", "boot", "prove", "ready"])
async def test_told_to_go_at_any_step_it_leaves_nothing(ground: Ground, where: str, how: str) -> None:
    if where == "create":
        ground.cloud.hold = threading.Event()
    ground.silent |= {"small"} if where == "boot" else set()
    host = await ground.order("small", "large", boot_s=60)
    await ground.until(host, {"create": "creating", "boot": "booting", "prove": "proving"}.get(where, "ready"), "ready")
    if where == "create":
        async with asyncio.timeout(10):
            while not ground.cloud.orders:
                await asyncio.sleep(0.02)
    await (host.signal("drain", NOW) if how == "drain" else host.cancel())
    if ground.cloud.hold:
        await asyncio.sleep(0.3)
        ground.cloud.hold.set()  # the machine is made behind the order to go
    report = whole(await asyncio.wait_for(host.result(), 30), ground)
    assert report.state == "gone"
    assert {one.attempt for one in ground.cloud.orders} == {1}, "nothing is begun after the end"


async def test_a_list_that_is_not_complete_proves_no_end(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    ground.cloud.blind = 3
    await host.signal("drain", NOW)
    await asyncio.wait_for(host.result(), 30)
    assert ground.cloud.blind == 0, "it was asked until it was complete"
    assert ground.cloud.held == {}


async def test_a_made_host_that_is_lost_is_ended_by_its_provider_with_receipts(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    for name in list(ground._machines):
        ground._end(name)  # the worker dies, the machine is still billed
    report = whole(await asyncio.wait_for(host.result(), 60), ground)
    assert "has not" in report.why or "no machine" in report.why


async def test_nothing_is_placed_on_a_machine_before_it_has_proved_itself(ground: Ground) -> None:
    ground.unproved.add("small")
    box = await ground.client.start_workflow(
        names.SANDBOX,
        SandboxSpec(environment=ground.environment, place_timeout_s=4),
        id=f"early-{ground.environment}",
        task_queue=names.CONTROL_QUEUE,
    )
    cause, report = await failure(await ground.order("small"))
    assert cause.type == "no-proof"
    whole(report, ground)
    with pytest.raises(WorkflowFailureError) as refused:
        await asyncio.wait_for(box.result(), 20)
    assert "no host" in str(refused.value.cause) or "slot" in str(refused.value.cause)
    assert not ground.world.held


async def test_a_zone_that_is_none_is_refused_and_ends(ground: Ground) -> None:
    choice = Choice(size="small", zone="nowhere")
    cause, report = await failure(await ground.order("small", choices=(choice,)))
    assert cause.type == "invalid"
    assert "nowhere" in cause.message
    whole(report, ground)


async def sandbox_on(ground: Ground, host: WorkflowHandle[object, HostReport]) -> WorkflowHandle[object, SandboxReport]:
    await ground.until(host, "ready")
    box = await ground.client.start_workflow(
        names.SANDBOX,
        SandboxSpec(environment=ground.environment),
        id=f"box-{ground.environment}",
        task_queue=names.CONTROL_QUEUE,
        result_type=SandboxReport,
    )
    async with asyncio.timeout(20):
        while (await box.query("status"))["state"] != "ready":
            await asyncio.sleep(0.05)
    return box


async def test_a_made_host_that_is_cancelled_tells_its_sandboxes_that_it_is_gone(ground: Ground) -> None:
    host = await ground.order("small")
    box = await sandbox_on(ground, host)
    await host.cancel()
    whole(await asyncio.wait_for(host.result(), 20), ground)
    with pytest.raises(WorkflowFailureError) as lost:
        await asyncio.wait_for(box.result(), 20)
    assert isinstance(lost.value.cause, ApplicationError)
    report = SandboxReport.model_validate(lost.value.cause.details[0])
    assert report.outcome is Outcome.HOST_LOST
    assert {one.gone for one in report.receipts} == {Gone.IMPLIED_BY_HOST}


async def test_an_unreachable_made_host_that_is_cancelled_ends_once(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    ground.cloud.blind = 10_000  # its end cannot be proved for now
    for name in list(ground._machines):
        ground._end(name)
    await ground.until(host, "terminating")
    await host.cancel()
    await asyncio.sleep(0.5)
    ground.cloud.blind = 0
    whole(await asyncio.wait_for(host.result(), 60), ground)
    failed = [
        one for one in (await host.fetch_history()).events if one.HasField("workflow_task_failed_event_attributes")
    ]
    assert not failed


async def test_a_drain_waits_for_its_sandboxes_and_then_stops_them(ground: Ground) -> None:
    host = await ground.order("small")
    box = await sandbox_on(ground, host)
    await host.signal("drain", DrainSpec(reason="new image", wait_s=3))
    await ground.until(host, "draining")
    await asyncio.sleep(1)
    assert (await box.query("status"))["state"] == "ready", "it may end by itself"
    report = await asyncio.wait_for(box.result(), 30)
    assert report.outcome is Outcome.STOPPED
    whole(await asyncio.wait_for(host.result(), 30), ground)


async def test_a_worker_that_starts_again_while_its_host_drains_is_told_again(ground: Ground) -> None:
    host = await ground.order("small")
    box = await sandbox_on(ground, host)
    await host.signal("drain", DrainSpec(reason="new image", wait_s=600))
    async with asyncio.timeout(10):
        while not ground.tables["h-1"].leaving:
            await asyncio.sleep(0.05)
    ground.tables["h-1"].leaving = False  # all that a new process knows
    async with asyncio.timeout(10):
        while not ground.tables["h-1"].leaving:
            await asyncio.sleep(0.05)
    await box.execute_update("stop", "enough")
    whole(await asyncio.wait_for(host.result(), 30), ground)


async def test_only_its_own_workflow_is_a_host(ground: Ground) -> None:
    spec = HostSpec(environment=ground.environment, host="h-1")
    handle = await ground.client.start_workflow(
        names.HOST, spec, id=f"other-{ground.environment}", task_queue=names.CONTROL_QUEUE
    )
    with pytest.raises(WorkflowFailureError) as raised:
        await asyncio.wait_for(handle.result(), 10)
    assert names.host_workflow_id(ground.environment, "h-1") in str(raised.value.cause)
