"""What a sweep asks of Temporal and of a host, each question alone."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecution, WorkflowHandle
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from activities import fleet
from activities.fleet import HostFleetActivities
from bench.fleet import HeldHost
from paddock.contracts import names
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.fleet import Closer, Forget, OtherSweep, Workflow
from paddock.contracts.ids import sandbox_id
from paddock.contracts.report import Gone
from tests.workflows.conftest import client, temporal
from tests.workflows.fleet import running

__all__ = ["client", "temporal"]

Sweep = WorkflowHandle[Any, Any]


async def closely(client: Client, **fields: str) -> Closer:
    ask = Workflow(**{"environment": "local", "host": "h", **fields})
    return await ActivityEnvironment(client=client).run(fleet.look_closely, ask)


async def test_a_workflow_that_never_was_does_not_run(client: Client) -> None:
    said = await closely(client, sandbox_id=sandbox_id("none", "r"), workflow_id="none", run_id=str(uuid.uuid4()))
    assert not said.running
    assert "there is no workflow none" in said.words


async def test_a_run_that_is_gone_while_its_name_runs_again_does_not_run(client: Client) -> None:
    name = f"w-{uuid.uuid4()}"
    handle = await client.start_workflow("Any", id=name, task_queue="nobody", args=[])
    gone = str(uuid.uuid4())
    said = await closely(client, sandbox_id=sandbox_id(name, gone), workflow_id=name, run_id=gone)
    assert (said.running, "no such run" in said.words) == (False, True)
    owner = await closely(client, sandbox_id=sandbox_id(name, str(handle.first_execution_run_id)), workflow_id=name)
    assert owner.running
    await handle.terminate()


async def test_a_server_that_does_not_answer_is_an_error_and_no_verdict(client: Client) -> None:
    class Away:
        async def describe(self, **_: Any) -> None:
            from temporalio.service import RPCStatusCode

            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")

    away: Any = SimpleNamespace(get_workflow_handle=lambda *_, **__: Away())
    with pytest.raises(RPCError):
        await closely(away, sandbox_id=sandbox_id("w", "r"), workflow_id="w", run_id="r")


async def test_a_host_whose_workflow_runs_is_not_called_lost(client: Client) -> None:
    environment = f"e-{uuid.uuid4().hex[:8]}"
    host = await client.start_workflow(
        names.HOST, id=names.host_workflow_id(environment, "h"), task_queue="nobody", args=[]
    )
    ask = Workflow(environment=environment, host="h", sandbox_id=sandbox_id("w", "r"), workflow_id="w", run_id="r")
    told = await ActivityEnvironment(client=client).run(fleet.tell_lost, ask)
    assert (told.told, told.words) == (False, "the Host workflow of h runs")
    await host.terminate()
    gone = await ActivityEnvironment(client=client).run(fleet.tell_lost, ask.model_copy(update={"run_id": ""}))
    assert (gone.told, gone.words) == (False, "it ended meanwhile")


async def sweep(client: Client, environment: str, queue: str = names.CONTROL_QUEUE, name: str = "") -> Sweep:
    """A sweep that no worker takes up, listed as running."""
    environment_key = SearchAttributeKey.for_keyword(names.ENVIRONMENT)
    handle = await client.start_workflow(
        names.FLEET_CLEANUP,
        id=name or f"sweep-{uuid.uuid4()}",
        task_queue=queue,
        args=[],
        search_attributes=TypedSearchAttributes([SearchAttributePair(environment_key, environment)]),
    )
    async with asyncio.timeout(20):
        while handle.id not in await running(client, names.FLEET_CLEANUP, environment):
            await asyncio.sleep(0.02)
    return handle


async def other(client: Client, mine: Sweep, environment: str) -> str:
    """The sweep that this one is told to leave the field to; empty when there is none."""
    asked = ActivityEnvironment(client=client)
    run = mine.first_execution_run_id
    asked.info = dataclasses.replace(asked.info, workflow_id=mine.id, workflow_run_id=run)
    found: OtherSweep = await asked.run(fleet.other_sweep, environment)
    return found.workflow_id


async def test_of_two_sweeps_the_one_that_began_later_is_told_of_the_other(client: Client) -> None:
    environment = f"e-{uuid.uuid4().hex[:8]}"
    first = await sweep(client, environment)
    second = await sweep(client, environment)
    assert await other(client, first, environment) == ""
    assert await other(client, second, environment) == first.id
    for one in (first, second):
        await one.terminate()


async def test_neither_a_sweep_on_a_dead_queue_nor_one_elsewhere_nor_one_that_ended_is_another(client: Client) -> None:
    environment, elsewhere = (f"e-{uuid.uuid4().hex[:8]}" for _ in range(2))
    dead = await sweep(client, environment, queue="nobody")
    far = await sweep(client, elsewhere)
    ended = await sweep(client, environment)
    await ended.terminate()
    mine = await sweep(client, environment)
    assert await other(client, mine, environment) == ""
    for one in (dead, far, mine):
        await one.terminate()


async def test_a_sweep_that_the_index_still_lists_after_its_end_is_asked_itself(client: Client) -> None:
    environment = f"e-{uuid.uuid4().hex[:8]}"
    first = await sweep(client, environment)
    mine = await sweep(client, environment)
    listed = [one async for one in client.list_workflows(f'WorkflowId="{first.id}"')]
    await first.terminate()
    behind: Any = Behind(client, listed)
    assert await other(behind, mine, environment) == ""
    await mine.terminate()


class Behind:
    """A client whose index is as it was a moment ago; all else is the server's word of now."""

    def __init__(self, client: Client, listed: list[WorkflowExecution]) -> None:
        self.get_workflow_handle, self._listed = client.get_workflow_handle, listed

    async def list_workflows(self, query: str) -> AsyncIterator[WorkflowExecution]:
        for one in self._listed:
            yield one


ONE, TWO = (sandbox_id("w", str(n)) for n in range(2))


class Host(HeldHost):
    """A host whose keeper drops output, and whose broker may be away."""

    away = False
    drops = True

    async def ask(self, op: str, **fields: Any) -> Any:
        if op == "leases" and self.away:
            raise PaddockError(ErrorKind.INTERNAL, "starting again")
        if op == "forget":
            if self.drops:
                (self.config.paths.output / fields["sandbox_id"]).rmdir()
            return None
        return await super().ask(op, **fields)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host", [])
    for name in (ONE, TWO):
        (made.config.paths.output / name).mkdir()
        with made.objects.writer(name) as writer:
            writer.write(b"x")
            writer.commit()
    return made


def verbs(host: Host) -> HostFleetActivities:
    return HostFleetActivities(host.config, host, host.slots, host.objects)  # type: ignore[arg-type]


async def test_what_nobody_may_ask_for_is_dropped_with_receipts(host: Host) -> None:
    ask = Forget(environment="local", host="h", sandboxes=(ONE,))
    undone = await ActivityEnvironment().run(verbs(host).forget_leftovers, ask)
    assert {(one.resource, one.gone) for one in undone.receipts} == {("output", Gone.PROVED), ("objects", Gone.PROVED)}
    assert host.objects.sandboxes() == (TWO,)
    assert (host.config.paths.output / TWO).exists()


async def test_what_somebody_may_ask_for_again_is_kept_and_so_is_said(host: Host) -> None:
    host.slots.confirm(ONE, "w", ())
    ask = Forget(environment="local", host="h", sandboxes=(ONE,))
    undone = await ActivityEnvironment().run(verbs(host).forget_leftovers, ask)
    assert {one.gone for one in undone.receipts} == {Gone.UNPROVED}
    assert {*host.objects.sandboxes()} == {ONE, TWO}


async def test_a_broker_that_is_away_leaves_the_list_incomplete(host: Host) -> None:
    whole = await ActivityEnvironment().run(verbs(host).host_inventory, "local")
    assert not whole.missing
    assert {left.sandbox_id for left in whole.left} == {ONE, TWO}
    host.away = True
    assert (await ActivityEnvironment().run(verbs(host).host_inventory, "local")).missing
