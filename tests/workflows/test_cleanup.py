"""`FleetCleanup` on a real server, with a played host: found twice, asked closely, freed in order, and reported."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError

from activities import fleet as activities
from paddock.contracts import fleet, names
from paddock.contracts.fleet import Action, CleanupReport, Found, Hold, Kind, Left, Row
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone
from paddock.contracts.status import Status
from tests.workflows.conftest import UNREADABLE
from tests.workflows.fleet import EVERY_RECEIPT, OLD, ORDER, Site, open_hosts, running, site
from workflows.cleanup import AT_ONCE, ENVIRONMENT_KEY

__all__ = ["site"]


def only(report: CleanupReport) -> Row:
    [row] = report.rows
    return row


async def test_an_orphan_is_freed_like_its_workflow_would_have_with_every_receipt(site: Site) -> None:
    box = await site.sandbox()
    sandbox = site.holds(box)
    await box.terminate("by a person")
    await site.listed()
    report = await site.sweep()
    row = only(report)
    assert (row.action, row.kind, row.id, row.host) == (Action.FREED, Kind.SANDBOX, sandbox, site.host)
    assert "terminated" in row.why
    assert row.workflow_id == box.id
    assert [name for name, _ in site.undone] == ORDER
    assert {receipt.resource for receipt in row.receipts} == EVERY_RECEIPT
    assert {receipt.gone for receipt in row.receipts} == {Gone.PROVED}
    assert (report.passes, report.counts, report.incomplete) == (2, {Action.FREED: 1}, ())
    assert not report.needs_a_person
    again = await site.sweep()
    assert (again.passes, again.rows) == (1, ())


async def test_it_waits_between_its_looks_by_a_timer_and_says_so(site: Site) -> None:
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    sweep = await site.start(between_s=600)
    async with asyncio.timeout(20):
        while not (now := await sweep.query("progress", result_type=fleet.CleanupProgress)).wakes_at:
            await asyncio.sleep(0.05)
    assert now.suspects == 1
    assert now.wakes_at
    assert 500 < (now.wakes_at - datetime.now(UTC)).total_seconds() <= 600
    assert (site.looks, site.undone) == (1, [])
    history = await sweep.fetch_history()
    assert [e.timer_started_event_attributes for e in history.events if e.HasField("timer_started_event_attributes")]
    await sweep.terminate()


async def test_what_is_gone_at_the_second_look_is_nobodys_business(site: Site) -> None:
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()

    def vanish(look: int) -> None:
        if look == 2:
            site.found.clear()

    site.before_look = vanish
    report = await site.sweep()
    assert (report.passes, report.rows, site.undone) == (2, (), [])


async def test_one_that_runs_although_no_list_says_so_is_spared(site: Site) -> None:
    """The index lags: its workflow, asked itself, is what counts."""
    hidden = await site.client.start_workflow("Elsewhere", 0, id=f"box-{uuid.uuid4()}", task_queue=names.CONTROL_QUEUE)
    site.holds(hidden)
    row = only(await site.sweep())
    assert row.action is Action.SPARED
    assert "runs" in row.why
    assert site.undone == []
    await hidden.terminate()


async def test_one_that_was_continued_as_another_run_is_spared(site: Site) -> None:
    hidden = await site.client.start_workflow("Elsewhere", 0, id=f"box-{uuid.uuid4()}", task_queue=names.CONTROL_QUEUE)
    site.holds(hidden)
    await hidden.signal("again")
    latest = site.client.get_workflow_handle(hidden.id)
    async with asyncio.timeout(20):
        while (found := await latest.describe()).run_id == hidden.first_execution_run_id:
            await asyncio.sleep(0.05)
    assert found.status is WorkflowExecutionStatus.RUNNING
    row = only(await site.sweep())
    assert (row.action, site.undone) == (Action.SPARED, [])
    await latest.terminate()


async def test_an_older_sandbox_of_a_name_that_runs_again_is_an_orphan(site: Site) -> None:
    name = f"box-{uuid.uuid4()}"
    first = await site.sandbox(name)
    orphan = site.holds(first)
    await first.terminate()
    second = await site.sandbox(name)
    alive = site.holds(second)
    assert orphan != alive
    await site.listed(name)
    row = only(await site.sweep())
    assert (row.action, row.id) == (Action.FREED, orphan)
    assert "another sandbox's" in row.why
    assert {sandbox for _, sandbox in site.undone} == {orphan}
    await second.terminate()


async def test_an_undo_that_proves_nothing_is_a_failure_drops_nothing_and_is_found_again(site: Site) -> None:
    box = await site.sandbox()
    sandbox = site.holds(box)
    await box.terminate()
    await site.listed()
    site.unproved.add(sandbox)
    report = await site.sweep(undo_s=5)
    row = only(report)
    assert row.action is Action.FAILED
    assert "unproved" in row.why
    assert "credential" in row.why
    assert report.needs_a_person
    assert "release_slot" not in {name for name, _ in site.undone}
    site.unproved.clear()
    assert only(await site.sweep()).action is Action.FREED


async def test_one_that_hangs_does_not_hold_up_the_others(site: Site) -> None:
    boxes = [await site.sandbox() for _ in range(3)]
    stuck, *others = [site.holds(box) for box in boxes]
    for box in boxes:
        await box.terminate()
    await site.listed()
    site.hang.add(stuck)
    report = await site.sweep(undo_s=5)
    assert {row.id: row.action for row in report.rows} == {stuck: Action.FAILED, **dict.fromkeys(others, Action.FREED)}
    site.hang.clear()


async def test_a_host_that_answers_nothing_more_costs_a_few_times_not_one_for_each_thing(site: Site) -> None:
    site.found = [
        Found(sandbox_id=sandbox_id("s", str(n)), age_s=OLD, holds=(Hold.RUNDIR,)) for n in range(AT_ONCE + 20)
    ]
    site.mute = True
    report = await site.sweep(undo_s=5)
    assert report.counts == {Action.FAILED: AT_ONCE + 20}
    assert report.took_s < 4 * 5
    assert sum("did not answer for 3 others" in row.why for row in report.rows) == 20
    site.mute = False


async def test_nobody_speaks_for_another_host(site: Site) -> None:
    site.name = "another-1"
    site.found = [Found(sandbox_id=sandbox_id("s", "1"), age_s=OLD, holds=(Hold.RUNDIR,))]
    report = await site.sweep()
    assert (report.rows, report.incomplete) == ((), (f"host {site.host} did not answer",))


async def test_a_host_that_answers_nonsense_spoils_only_its_own_part(site: Site) -> None:
    boxes = [await site.sandbox() for _ in range(2)]
    liar, other = [site.holds(box) for box in boxes]
    for box in boxes:
        await box.terminate()
    await site.listed()
    site.garbage = "all is well"
    nothing = await site.sweep()
    assert (nothing.rows, nothing.incomplete) == ((), (f"host {site.host} did not answer",))
    site.garbage = ""
    site.babble.add(liar)
    rows = {row.id: row for row in (await site.sweep()).rows}
    assert (rows[liar].action, rows[other].action) == (Action.FAILED, Action.FREED)
    assert "malformed" in rows[liar].why


@pytest.mark.parametrize("answer", UNREADABLE, ids=("encoding", "json", "nothing"))
async def test_an_answer_that_is_none_is_that_of_a_silent_host(site: Site, answer: object) -> None:
    site.garbage = answer
    report = await site.sweep()
    assert (report.rows, report.incomplete) == ((), (f"host {site.host} did not answer",))


async def test_a_dry_run_says_the_same_and_does_nothing(site: Site) -> None:
    box = await site.sandbox()
    site.holds(box)
    site.left = [Left(sandbox_id=sandbox_id("gone", "1"), age_s=OLD, output=True)]
    await box.terminate()
    await site.listed()
    report = await site.sweep(dry_run=True)
    assert [row.action for row in report.rows] == [Action.WOULD_FREE] * 2
    assert (site.undone, site.forgotten) == ([], [])
    assert report.needs_a_person
    assert report.dry_run


async def test_what_ended_sandboxes_left_is_dropped(site: Site) -> None:
    gone = sandbox_id("gone", "1")
    site.left = [Left(sandbox_id=gone, age_s=OLD, output=True)]
    row = only(await site.sweep())
    assert (row.action, row.kind, site.forgotten) == (Action.FREED, Kind.LEFTOVERS, [gone])
    assert row.receipts


async def test_a_storm_frees_nothing_and_asks_a_person_who_may_allow_it(site: Site) -> None:
    boxes = [await site.sandbox() for _ in range(4)]
    for box in boxes:
        site.holds(box)
        await box.terminate()
    await site.listed()
    report = await site.sweep()
    assert "paddock fleet cleanup --allow 4" in report.asks
    assert report.needs_a_person
    assert {row.action for row in report.rows} == {Action.SPARED}
    assert site.undone == []
    allowed = await site.sweep(allow=4)
    assert (allowed.counts, allowed.asks) == ({Action.FREED: 4}, "")


async def test_a_host_that_does_not_answer_makes_the_report_incomplete_and_holds_nothing_up(site: Site) -> None:
    silent = await site.client.start_workflow(
        names.HOST, id=names.host_workflow_id(site.environment, "silent-1"), task_queue="nobody", args=[]
    )
    async with asyncio.timeout(20):
        while len(await open_hosts(site.client, site.environment)) < 2:
            await asyncio.sleep(0.05)
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    report = await site.sweep(host_s=1)
    assert only(report).action is Action.FREED
    assert report.incomplete == ("host silent-1 did not answer",)
    await silent.terminate()


async def test_a_workflow_whose_host_has_none_is_told_that_it_is_lost(site: Site) -> None:
    box = await site.sandbox(host="gone-1")
    await site.listed(box.id)
    await asyncio.sleep(1)  # older than the grace time
    site.complete = False
    spared = await site.sweep()
    assert [row.action for row in spared.rows] == [Action.SPARED]
    site.complete = True
    report = await site.sweep()
    row = only(report)
    assert (row.action, row.kind) == (Action.TOLD, Kind.WORKFLOW)
    assert "gone-1" in row.why
    status = await box.query("status", result_type=Status)
    assert status.state == "ending"
    assert "gone-1" in status.finding
    # and while it waits for its host's deadlines, the next sweep tells it again, which does no harm
    await box.terminate()


async def test_one_that_stays_ending_is_reported_with_its_own_words(site: Site) -> None:
    box = await site.sandbox()
    sandbox = site.holds(box)
    site.unproved.add(sandbox)
    stop = asyncio.ensure_future(box.execute_update("stop", "test"))
    async with asyncio.timeout(20):
        while not (await box.query("status", result_type=Status)).finding:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    row = only(await site.sweep())
    assert row.action is Action.FINDING
    assert "stays `ending`" in row.why
    assert "looked" in row.why
    site.unproved.clear()
    await stop


async def test_many_pages_of_open_workflows_are_one_list(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities, "PAGE", 2)
    boxes = [await site.sandbox() for _ in range(5)]
    for box in boxes:
        site.holds(box)
    await site.listed(*(box.id for box in boxes))
    report = await site.sweep()
    assert (report.known, report.rows, report.passes) == (5, (), 1)
    for box in boxes:
        await box.terminate()


async def test_a_second_sweep_says_that_one_is_going_on_and_looks_at_nothing(site: Site) -> None:
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    first = await site.start(between_s=600)
    async with asyncio.timeout(20):
        while first.id not in await running(site.client, names.FLEET_CLEANUP, site.environment):
            await asyncio.sleep(0.05)
    second = await site.sweep()
    assert first.id in second.incomplete[0]
    assert (second.passes, second.rows) == (0, ())
    await first.terminate()


async def test_a_sweep_on_a_queue_that_nobody_works_stops_no_other(site: Site) -> None:
    box = await site.sandbox()
    site.holds(box)
    await box.terminate()
    await site.listed()
    dead = await site.client.start_workflow(
        names.FLEET_CLEANUP,
        fleet.CleanupSpec(environment=site.environment),
        id=f"sweep-{uuid.uuid4()}",
        task_queue="nobody",
        search_attributes=TypedSearchAttributes([SearchAttributePair(ENVIRONMENT_KEY, site.environment)]),
    )
    async with asyncio.timeout(20):
        while dead.id not in await running(site.client, names.FLEET_CLEANUP, site.environment):
            await asyncio.sleep(0.05)
    report = await site.sweep()
    assert (only(report).action, report.passes, report.incomplete) == (Action.FREED, 2, ())
    assert (await dead.describe()).status is WorkflowExecutionStatus.RUNNING
    await dead.terminate()


async def test_an_environment_that_nobody_works_for_is_told_in_words(site: Site) -> None:
    report = await site.sweep(environment=f"e-{uuid.uuid4().hex[:12]}", host_s=1)
    assert (report.rows, report.hosts, report.incomplete) == ((), 0, ("the environment's provider did not answer",))
    assert report.took_s < 1 + 7, "it waited for who is not there"


async def test_from_the_ui_nothing_but_braces_is_needed_and_a_wrong_field_fails_the_run_at_once(
    site: Site, client: Client
) -> None:
    plain = await client.start_workflow(
        names.FLEET_CLEANUP, {}, id=f"ui-{uuid.uuid4()}", task_queue=names.CONTROL_QUEUE
    )
    await plain.query("progress")
    await plain.terminate()
    wrong = await client.start_workflow(
        names.FLEET_CLEANUP, {"grace": 1}, id=f"ui-{uuid.uuid4()}", task_queue=names.CONTROL_QUEUE
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(wrong.result(), 20)
    assert isinstance(failed.value.cause, ApplicationError)
    assert "grace" in str(failed.value.cause)


async def test_many_rows_are_cut_and_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.found = [
        Found(sandbox_id=sandbox_id("s", str(n)), age_s=5.0, holds=(Hold.RUNDIR,)) for n in range(fleet.MAX_ROWS + 50)
    ]
    report = await site.sweep(grace_s=600)
    assert (len(report.rows), report.more) == (fleet.MAX_ROWS, 50)
    assert report.counts == {Action.SPARED: fleet.MAX_ROWS + 50}
