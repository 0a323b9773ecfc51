"""What a pool sees by Temporal's index: hosts with their slots and sandboxes, and who waits, of one environment."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.pool import count_sandboxes, stop_sandboxes, view_pool
from paddock.contracts import names
from paddock.contracts.errors import ErrorKind
from paddock.contracts.hosts import HostNews, HostSpec
from paddock.contracts.pool import PoolHost, PoolView
from paddock.contracts.status import State
from tests.workflows.conftest import client, temporal

__all__ = ["client", "temporal"]


@dataclass
class Index:
    """Workflows that nobody works on, listed as they would be."""

    client: Client
    environment: str = field(default_factory=lambda: f"e-{uuid.uuid4().hex[:12]}")
    open: list[WorkflowHandle[object, object]] = field(default_factory=list)

    async def add(self, kind: str, name: str, memo: dict[str, object] | None = None, **known: str) -> str:
        attributes = {names.ENVIRONMENT: self.environment, **known}
        pairs = [
            SearchAttributePair(SearchAttributeKey.for_keyword(key), value)
            for key, value in attributes.items()
            if value
        ]
        handle = await self.client.start_workflow(
            kind, id=name, task_queue="nobody", args=[], memo=memo, search_attributes=TypedSearchAttributes(pairs)
        )
        self.open.append(handle)
        return name

    async def host(
        self, name: str, state: str = "ready", slots: int | None = 4, environment: str = "", since: str = ""
    ) -> None:
        where = environment or self.environment
        memo: dict[str, object] | None = None if slots is None else {"slots": slots}
        if since:
            memo = {**(memo or {}), "since": since}
        await self.add(names.HOST, names.host_workflow_id(where, name), memo, **{names.STATE: state})

    async def sandbox(self, state: State, host: str = "", environment: str = "") -> str:
        known = {names.STATE: state.value, names.HOST_ATTRIBUTE: host}
        if environment:
            known[names.ENVIRONMENT] = environment
        return await self.add(names.SANDBOX, f"box-{uuid.uuid4()}", **known)

    async def listed(self, environment: str = "") -> None:
        """Until the index shows all that was added."""
        async with asyncio.timeout(20):
            while True:
                found = {
                    one.id
                    async for one in self.client.list_workflows(
                        'TaskQueue="nobody" AND ExecutionStatus="Running"', page_size=1000
                    )
                }
                if {one.id for one in self.open} <= found:
                    return
                await asyncio.sleep(0.05)

    async def view(self) -> PoolView:
        await self.listed()
        seen = await ActivityEnvironment(client=self.client).run(view_pool, self.environment)
        assert all(0 <= one.age_s < 60 for one in seen.hosts)
        hosts = (one.model_copy(update={"age_s": 0.0}) for one in seen.hosts)
        return PoolView(hosts=tuple(sorted(hosts, key=lambda one: one.host)), waiting=seen.waiting)


@pytest.fixture
async def index(client: Client) -> AsyncIterator[Index]:
    here = Index(client)
    yield here
    for one in here.open:
        await one.terminate()


async def test_an_environment_without_anything(index: Index) -> None:
    assert await index.view() == PoolView()


async def test_each_host_with_its_slots_and_the_sandboxes_on_it(index: Index) -> None:
    await index.host("a", slots=8)
    await index.host("b", "draining")
    for state in (State.BOOTING, State.READY, State.ENDING):
        await index.sandbox(state, host="a")
    await index.sandbox(State.RUNNING, host="b")
    seen = await index.view()
    assert seen.hosts == (
        PoolHost(host="a", state="ready", slots=8, used=3, made=False),
        PoolHost(host="b", state="draining", slots=4, used=1, made=False),
    ), "one that ends holds its slot until it is over"
    assert seen.waiting == 0


async def test_who_waits_and_who_does_no_longer(index: Index) -> None:
    for state in State:
        await index.sandbox(state)
    waiting = {State.ADMITTED, State.PLACING, State.BOOTING, State.FENCING, State.READY, State.RUNNING,
               State.COLLECTING, State.PAUSED, State.QUARANTINED}  # fmt: skip
    assert (await index.view()).waiting == len(waiting) == len(State) - 2, "one that ends before it had a host does not"


async def test_other_environments_are_not_seen(index: Index) -> None:
    other = f"{index.environment}-2"
    await index.host("far", environment=other)
    await index.sandbox(State.PLACING, environment=other)
    await index.sandbox(State.READY, host="near", environment=other)
    await index.host("near")
    seen = await index.view()
    assert [(one.host, one.used) for one in seen.hosts] == [("near", 0)], "a name that begins alike is another's"
    assert seen.waiting == 0


async def test_who_ended_is_not_seen(index: Index) -> None:
    await index.host("gone")
    await index.sandbox(State.PLACING)
    await index.listed()
    for one in index.open:
        await one.terminate()
    async with asyncio.timeout(20):
        while await ActivityEnvironment(client=index.client).run(view_pool, index.environment) != PoolView():
            await asyncio.sleep(0.05)
    index.open.clear()


async def test_a_host_that_has_not_said_its_slots_or_state_lends_none(index: Index) -> None:
    await index.host("new", state="", slots=None)
    assert (await index.view()).hosts == (PoolHost(host="new", state="recorded", slots=0, made=False),)


@pytest.mark.parametrize("name", ['e" OR "1"="1', "e\n", "E", "", 'x" OR WorkflowType="Sandbox', "e%", "e_f", "../e"])
async def test_what_is_no_environment_is_refused_and_asks_the_index_nothing(index: Index, name: str) -> None:
    class Silent:
        def list_workflows(self, *_: object) -> None:
            raise AssertionError("it was asked")

    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment(client=Silent()).run(view_pool, name)  # type: ignore[arg-type]
    assert (raised.value.type, raised.value.non_retryable) == (ErrorKind.BAD_SPEC.value, True)
    assert "is no environment" in raised.value.message


async def test_a_host_is_as_old_as_its_first_run_says(index: Index) -> None:
    now = datetime.now(UTC)
    said = {
        "old": (now - timedelta(hours=5)).isoformat(),
        "naive": (now - timedelta(hours=4)).replace(tzinfo=None).isoformat(),
        "ahead": (now + timedelta(hours=1)).isoformat(),
        "bad": "long ago",
        "none": "",
    }
    for name, since in said.items():
        await index.host(name, since=since)
    await index.listed()
    seen = await ActivityEnvironment(client=index.client).run(view_pool, index.environment)
    hours = {one.host: round(one.age_s / 3600, 1) for one in seen.hosts}
    assert hours == {"old": 5.0, "naive": 4.0, "bad": 0.0, "none": 0.0, "ahead": 0.0}


async def test_sandboxes_of_one_host_are_counted(index: Index) -> None:
    for host in ("a", "a", "a2"):
        await index.sandbox(State.READY, host=host)
    await index.sandbox(State.READY, host="a", environment=f"{index.environment}-2")
    await index.listed()
    asked = HostSpec(environment=index.environment, host="a")
    assert await ActivityEnvironment(client=index.client).run(count_sandboxes, asked) == 2


async def test_stopping_sandboxes_that_ended_meanwhile_tells_nobody(index: Index) -> None:
    await index.sandbox(State.READY, host="a")
    await index.listed()
    for one in index.open:
        await one.terminate()
    news = HostNews(environment=index.environment, host="a", words="the host drains")
    assert await ActivityEnvironment(client=index.client).run(stop_sandboxes, news) == 0
    index.open.clear()


async def test_more_sandboxes_than_one_page_holds_are_all_seen(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = index.client.list_workflows
    monkeypatch.setattr(index.client, "list_workflows", lambda query, **more: asked(query, **{**more, "page_size": 3}))
    for n in range(10):
        await index.sandbox(State.READY if n % 2 else State.PLACING, host="a" if n % 2 else "")
    await index.host("a", slots=8)
    seen = await index.view()
    assert (seen.waiting, [one.used for one in seen.hosts]) == (5, [5])
