"""`FleetCleanup` over a provider, on a real server: what no open host owns is ended and proved, and nothing else."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Worker

from activities import environment as ground_activities
from activities import fleet
from activities.environment import EnvironmentActivities
from paddock.contracts import names
from paddock.contracts.fleet import Action, CleanupReport, CleanupSpec, Kind, Row
from paddock.contracts.ground import Choice, Wanted
from paddock.contracts.hosts import HostSpec
from paddock.contracts.report import Gone
from providers.contract import HostState, Item
from tests.workflows.fleet import Elsewhere
from tests.workflows.sky import AS_OF, CONTROLLER, Sky, made, side
from workflows.cleanup import FleetCleanup
from workflows.host import STATE_KEY

WANTED = Wanted(choices=(Choice(size="large", zone="zone-a"),))
SECRET = "AKIA-hunter2"


@dataclass
class Far:
    """An environment with a provider: its worker is real, its hosts are workflows that are only open."""

    client: Client
    sky: Sky = field(default_factory=Sky)
    environment: str = field(default_factory=lambda: f"e-{uuid.uuid4().hex[:12]}")
    opened: list[WorkflowHandle[Any, Any]] = field(default_factory=list)
    last: WorkflowHandle[Any, CleanupReport] | None = None

    async def host(
        self, host: str, state: str = "ready", wanted: Wanted | None = WANTED, environment: str = ""
    ) -> WorkflowHandle[Any, Any]:
        """A host's workflow, until it is in Temporal's index."""
        where = environment or self.environment
        handle = await self.client.start_workflow(
            names.HOST,
            HostSpec(environment=where, host=host, wanted=wanted),
            id=names.host_workflow_id(where, host),
            task_queue="nobody",
            search_attributes=TypedSearchAttributes([SearchAttributePair(STATE_KEY, state)]),
        )
        self.opened.append(handle)
        query = f'WorkflowId="{handle.id}" AND ExecutionStatus="Running"'
        async with asyncio.timeout(20):
            while (await self.client.count_workflows(query)).count != 1:
                await asyncio.sleep(0.05)
        return handle

    async def sweep(self, **fields: Any) -> CleanupReport:
        spec = CleanupSpec(
            **{"environment": self.environment, "grace_s": 600, "between_s": 1, "host_s": 2, "undo_s": 20, **fields}
        )
        self.last = await self.client.start_workflow(
            names.FLEET_CLEANUP,
            spec,
            id=f"sweep-{uuid.uuid4()}",
            task_queue=names.CONTROL_QUEUE,
            result_type=CleanupReport,
        )
        return await asyncio.wait_for(self.last.result(), 60)

    async def history(self) -> str:
        assert self.last
        return (await self.last.fetch_history()).to_json()

    async def asked(self) -> list[str]:
        """The activities of the last sweep in the order in which it asked for them."""
        assert self.last
        events = (await self.last.fetch_history()).events
        scheduled = [one.activity_task_scheduled_event_attributes for one in events]
        return [one.activity_type.name for one in scheduled if one.activity_id]


@pytest.fixture
async def far(client: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    monkeypatch.setattr(ground_activities, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(ground_activities, "SLOWEST_LOOK_S", 0.2)
    here = Far(client)
    ground = EnvironmentActivities(here.environment, here.sky, CONTROLLER)
    quick: dict[str, Any] = {
        "max_heartbeat_throttle_interval": timedelta(seconds=0.1),
        "default_heartbeat_throttle_interval": timedelta(seconds=0.1),
        "graceful_shutdown_timeout": timedelta(0),
    }
    async with AsyncExitStack() as stack:
        for made_worker in (
            Worker(
                client,
                task_queue=names.CONTROL_QUEUE,
                workflows=[FleetCleanup, Elsewhere],
                activities=fleet.ON_CONTROL,
                **quick,
            ),
            Worker(
                client,
                task_queue=names.ground_queue(here.environment),
                activities=[ground.list_ground, ground.end_item],
                **quick,
            ),
        ):
            await stack.enter_async_context(made_worker)
        yield here
        await asyncio.gather(*(one.terminate() for one in here.opened), return_exceptions=True)


def only(report: CleanupReport) -> Row:
    [row] = report.rows
    return row


def rows(report: CleanupReport) -> dict[str, Action]:
    return {row.id: row.action for row in report.rows}


def orphan(far: Far, host: str = "h-1", **change: object) -> Item:
    machine = made(host, **change)
    far.sky.put(machine)
    return machine


async def test_an_orphan_is_ended_with_its_parts_and_what_it_cost_is_said(far: Far) -> None:
    machine = orphan(far)
    far.sky.put(side(machine), side(machine, "nic"))
    report = await far.sweep()
    row = only(report)
    assert (row.action, row.kind, row.id, row.host) == (Action.FREED, Kind.MACHINE, machine.id, "h-1")
    assert "no Host workflow is open" in row.why
    assert f"there is no workflow host/{far.environment}/h-1" in row.why
    assert {(one.resource, one.gone) for one in row.receipts} == {
        (kind, Gone.PROVED) for kind in ("host", "disk", "nic")
    }
    assert (row.cost_per_hour, row.currency, row.price_as_of) == (0.4, "USD", AS_OF)
    assert (report.saves_per_hour, report.price_as_of) == ({"USD": 0.4}, AS_OF)
    assert (report.passes, report.machines, report.strange, report.incomplete) == (2, 1, 0, ())
    assert (far.sky.ended, far.sky.held) == ([machine.id], [])
    again = await far.sweep()
    assert (again.passes, again.rows, again.saves_per_hour) == (1, (), {})


async def test_the_cloud_is_listed_first_then_hosts_then_workflows_and_the_owner_is_asked_before_the_end(
    far: Far,
) -> None:
    orphan(far)
    await far.sweep()
    look = ["list_ground", "list_hosts", "list_sandboxes"]
    assert await far.asked() == ["other_sweep", *look, *look, "look_closely", "end_item"]


async def test_a_machine_whose_host_is_open_in_any_environment_is_nobodys_business(far: Far) -> None:
    mine, other = orphan(far, "h-1"), orphan(far, f"h-{uuid.uuid4().hex[:8]}")
    await far.host("h-1", "booting")
    await far.host(other.host, environment=f"e-{uuid.uuid4().hex[:8]}")
    report = await far.sweep()
    assert (report.rows, report.passes, report.machines, report.incomplete) == ((), 1, 1, ())
    assert {one.id for one in far.sky.held} == {mine.id, other.id}


async def test_one_is_ended_once_its_host_has_ended(far: Far) -> None:
    orphan(far)
    host = await far.host("h-1", "booting")
    assert (await far.sweep()).rows == ()
    await host.terminate()
    query = f'WorkflowId="{host.id}" AND ExecutionStatus="Running"'
    async with asyncio.timeout(20):
        while (await far.client.count_workflows(query)).count:
            await asyncio.sleep(0.05)
    row = only(await far.sweep())
    assert row.action is Action.FREED
    assert "is terminated" in row.why


async def test_one_whose_host_runs_although_no_list_says_so_is_spared(far: Far) -> None:
    """The index lags: the host's workflow, asked itself, is what counts."""
    orphan(far)
    hidden = await far.client.start_workflow(
        "Elsewhere", 0, id=names.host_workflow_id(far.environment, "h-1"), task_queue=names.CONTROL_QUEUE
    )
    row = only(await far.sweep())
    assert (row.action, far.sky.ended) == (Action.SPARED, [])
    assert "runs" in row.why
    await hidden.terminate()


async def test_what_is_protected_just_before_its_end_is_spared(far: Far) -> None:
    machine = orphan(far)

    def protect(look: int) -> None:
        if look == 3:
            far.sky.change(machine.id, protected=True)

    far.sky.before_look = protect
    row = only(await far.sweep())
    assert (row.action, row.receipts, far.sky.ended) == (Action.SPARED, (), [])
    assert "protected now" in row.why


async def test_nothing_but_what_is_surely_an_orphan_is_ended(far: Far) -> None:
    failed = orphan(far, "failed", state=HostState.DELETING, why="its disk could not be made")
    spared = [
        orphan(far, "young", created=AS_OF + timedelta(days=36500)),
        orphan(far, "unknown", created=None),
        orphan(far, "protected", protected=True),
        orphan(far, "foreign", controller="theirs"),
        orphan(far, "", id="half-tagged"),
        orphan(far, "ending", state=HostState.DELETING),
    ]
    lonely = replace(side(made("lonely")), attached_to="", created=made("lonely").created)
    far.sky.put(lonely)
    report = await far.sweep()
    assert rows(report) == {
        failed.id: Action.FREED,
        lonely.id: Action.FREED,
        **{one.id: Action.SPARED for one in spared},
    }
    assert {*far.sky.ended} == {failed.id, lonely.id}
    assert (report.machines, report.strange) == (5, 2)
    assert not report.needs_a_person


async def test_a_storm_ends_nothing_and_asks_a_person_who_may_allow_it(far: Far) -> None:
    machines = [orphan(far, f"h-{n}") for n in range(2)]
    report = await far.sweep()
    assert f"paddock fleet cleanup --allow 2 --environment {far.environment}" in report.asks
    assert report.needs_a_person
    assert (rows(report), far.sky.ended) == (dict.fromkeys([one.id for one in machines], Action.SPARED), [])
    allowed = await far.sweep(allow=2)
    assert (allowed.counts, allowed.asks, allowed.saves_per_hour) == ({Action.FREED: 2}, "", {"USD": 0.8})


async def test_a_dry_run_says_the_same_and_ends_nothing(far: Far) -> None:
    machine = orphan(far)
    dry = await far.sweep(dry_run=True)
    assert (only(dry).action, far.sky.ended) == (Action.WOULD_FREE, [])
    assert (dry.saves_per_hour, dry.needs_a_person) == ({"USD": 0.4}, True)
    real = await far.sweep()
    assert far.sky.ended == [machine.id]
    assert only(real).model_copy(update={"action": Action.WOULD_FREE, "receipts": (), "why": "", "age_s": 0}) == only(
        dry
    ).model_copy(update={"why": "", "age_s": 0})


async def test_an_incomplete_list_misses_no_machine_and_proves_no_end_but_what_it_shows_is_ended(far: Far) -> None:
    machine = orphan(far)
    await far.host("h-2", "unreachable")
    far.sky.complete, far.sky.missing = False, (f"disks of region-b: auth: denied for {SECRET}",)
    report = await far.sweep(undo_s=5, host_s=1)
    assert rows(report) == {machine.id: Action.FAILED}
    assert far.sky.ended == [machine.id]
    assert "not freed within 5 s" in only(report).why
    assert "the list of the played provider is not complete: disks of region-b: auth" in report.incomplete


async def test_a_host_whose_machine_is_not_in_the_whole_list_is_a_finding_unless_it_joined(far: Far) -> None:
    await far.host("made-1", "unreachable")
    await far.host("joined-1", "ready", wanted=None)
    await far.host("made-2", "booting")
    await far.host("made-3", "ready")
    far.sky.put(made("made-3"))
    report = await far.sweep(host_s=1)
    found = {row.id: row for row in report.rows}
    assert {id: row.action for id, row in found.items()} == {"made-1": Action.FINDING, "joined-1": Action.SPARED}
    assert found["made-1"].kind is Kind.HOST
    assert "its workflow is unreachable, but no machine of it is in the whole list" in found["made-1"].why
    assert "joined by itself" in found["joined-1"].why
    assert report.needs_a_person


async def test_one_that_does_not_end_in_time_is_a_failure_that_the_next_sweep_finds(far: Far) -> None:
    slow, quick = orphan(far, "h-1"), orphan(far, "h-2")
    far.sky.slow.add(slow.id)
    report = await far.sweep(undo_s=5, allow=2)
    assert rows(report) == {slow.id: Action.FAILED, quick.id: Action.FREED}
    assert report.saves_per_hour == {"USD": 0.4}
    row = only(await far.sweep())
    assert (row.id, row.action) == (slow.id, Action.SPARED)
    assert "on its way out" in row.why


async def test_nothing_of_the_cloud_but_ids_names_and_tags_gets_into_a_history(far: Far) -> None:
    orphan(far, state=HostState.DELETING, why=f"user data {SECRET} was refused")
    far.sky.missing = (f"disks: {SECRET} is denied",)
    await far.sweep()
    history = await far.history()
    assert SECRET not in history
    assert "end_item" in history


async def test_a_worker_that_takes_nothing_costs_a_few_times_not_one_for_each_machine(client: Client, far: Far) -> None:
    """Only its list is answered: what is to be ended waits for somebody who does it."""
    deaf = Far(client)
    machines = [orphan(deaf, f"h-{n}") for n in range(14)]
    ground = EnvironmentActivities(deaf.environment, deaf.sky, CONTROLLER)
    given: Sequence[Any] = [ground.list_ground]
    worker = Worker(client, task_queue=names.ground_queue(deaf.environment), activities=given)
    async with worker:
        stop = asyncio.ensure_future(_after_two_looks(deaf, worker))
        report = await deaf.sweep(allow=14, host_s=1)
        await stop
    assert report.counts == {Action.FAILED: len(machines)}
    assert sum("the provider's worker did not answer for 3 others" in row.why for row in report.rows) >= 14 - 8 - 3
    assert report.took_s < 15


async def _after_two_looks(far: Far, worker: Worker) -> None:
    async with asyncio.timeout(30):
        while far.sky.looks < 2:
            await asyncio.sleep(0.02)
    await worker.shutdown()
