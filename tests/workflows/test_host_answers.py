"""`Host` and what nobody may tell it: an answer that cannot be read is asked for again, a foreign id is refused."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from paddock.contracts import hosts, names
from tests.workflows.conftest import UNREADABLE
from workflows import host as host_module
from workflows.host import Host

HOST = "far-1"
ASK_AGAIN = "an answer that could not be read: ask again"
FAILED_TASK = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
NONSENSE: tuple[object, ...] = ("gone, I swear", {"gone": "perhaps", "checked_by": "me"}, {}, 7, [], None, *UNREADABLE)


@dataclass
class Site:
    """An environment whose host never answers: its provider and its control worker say what the test gives them."""

    client: Client
    environment: str = field(default_factory=lambda: f"e-{uuid.uuid4().hex[:12]}")
    fenced: list[object] = field(default_factory=list)
    told: list[object] = field(default_factory=list)
    may_fence: Callable[[], bool] = lambda: True

    @property
    def spec(self) -> hosts.HostSpec:
        return hosts.HostSpec(environment=self.environment, host=HOST)

    @activity.defn
    async def fence_host(self, spec: hosts.HostSpec) -> Any:
        while not self.may_fence():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return self.fenced.pop(0) if self.fenced else hosts.Fenced(gone=True, checked_by="looked")

    @activity.defn
    async def tell_sandboxes(self, news: hosts.HostNews) -> Any:
        return self.told.pop(0) if self.told else 0

    async def join(self, workflow_id: str = "", **more: Any) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(
            names.HOST,
            self.spec,
            id=workflow_id or names.host_workflow_id(self.environment, HOST),
            task_queue=names.CONTROL_QUEUE,
            start_signal="joined",
            start_signal_args=[self.spec],
            **more,
        )


@pytest.fixture
async def site(client: Client) -> AsyncIterator[Site]:
    here = Site(client)
    control = Worker(
        client,
        task_queue=names.CONTROL_QUEUE,
        workflows=[Host],
        activities=[here.tell_sandboxes],
        workflow_runner=UnsandboxedWorkflowRunner(),  # the shorter times below reach the workflow
    )
    ground = Worker(client, task_queue=names.ground_queue(here.environment), activities=[here.fence_host])
    async with control, ground:
        yield here


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "temporalio")  # whatever other tests left


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The same steps in less time; answers the seconds of each wait that the workflow wanted before it asks again."""
    wanted: list[float] = []
    sleep: Callable[..., Any] = host_module.workflow.sleep

    async def sooner(duration: float | timedelta, *, summary: str = "") -> None:
        if summary == ASK_AGAIN and not host_module.workflow.unsafe.is_replaying():
            wanted.append(duration.total_seconds() if isinstance(duration, timedelta) else duration)
        await sleep(0.1, summary=summary)

    monkeypatch.setattr(host_module.workflow, "sleep", sooner)
    monkeypatch.setattr(host_module, "NEW_WORKER", timedelta(seconds=1))
    return wanted


async def gone(handle: WorkflowHandle[Any, Any]) -> None:
    await asyncio.wait_for(handle.result(), 40)
    assert await handle.query("status") == "gone"


def logged(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """What the workflow itself warned of in all of these words."""
    said = [one.getMessage() for one in caplog.records if one.name == "temporalio.workflow"]
    return [one for one in said if all(word in one for word in words)]


async def kinds(handle: WorkflowHandle[Any, Any]) -> list[int]:
    return [event.event_type for event in (await handle.fetch_history()).events]


async def asked(handle: WorkflowHandle[Any, Any], name: str) -> int:
    """How often the workflow asked for this activity; its own retries do not count."""
    events = (await handle.fetch_history()).events
    return sum(event.activity_task_scheduled_event_attributes.activity_type.name == name for event in events)


async def test_a_fence_whose_answer_cannot_be_read_is_asked_again_after_a_wait_and_it_is_logged(
    site: Site, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    site.fenced = list(NONSENSE)
    handle = await site.join()
    await gone(handle)
    assert waits == [30] * len(NONSENSE)
    assert await asked(handle, "fence_host") == len(NONSENSE) + 1
    assert len(logged(caplog, f"fence_host on ground/{site.environment}: ", "for Fenced")) == len(NONSENSE)
    assert FAILED_TASK not in await kinds(handle)


async def test_news_whose_answer_cannot_be_read_are_told_again_after_a_wait_and_it_is_logged(
    site: Site, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = ["many", {"told": 1}, 1.5, None, *UNREADABLE]
    site.told, site.may_fence = list(nonsense), lambda: len(waits) >= len(nonsense)
    handle = await site.join()
    await gone(handle)
    assert waits == [30] * len(nonsense)
    assert await asked(handle, "tell_sandboxes") > len(nonsense)
    assert len(logged(caplog, "tell_sandboxes on control: ", "for int")) == len(nonsense)
    assert FAILED_TASK not in await kinds(handle)


async def test_one_that_never_says_anything_that_can_be_read_leaves_the_host_unreachable_and_open(
    site: Site, waits: list[float]
) -> None:
    site.fenced = [NONSENSE[0]] * 1000
    handle = await site.join()
    async with asyncio.timeout(30):
        while len(waits) < 4:
            await asyncio.sleep(0.05)
    assert await handle.query("status") == "unreachable"
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    await handle.signal("leave")
    await gone(handle)
    assert FAILED_TASK not in await kinds(handle)


@pytest.mark.parametrize(
    "foreign",
    ["any", "host/{environment}/far-2", "host/{environment}x/far-1", "host/{environment}/far-1/ctl", "host/far-1"],
)
async def test_under_a_foreign_id_it_is_refused_at_once_with_the_right_one(site: Site, foreign: str) -> None:
    own = foreign.format(environment=site.environment)
    handle = await site.join(own, retry_policy=RetryPolicy(maximum_attempts=3))
    with pytest.raises(WorkflowFailureError) as refused:
        await asyncio.wait_for(handle.result(), 10)
    cause = refused.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable
    assert HOST in cause.message
    assert names.host_workflow_id(site.environment, HOST) in cause.message
    found = await kinds(handle)
    assert SCHEDULED not in found, "it asked somebody before it refused"
    assert FAILED_TASK not in found


async def test_under_its_own_id_it_joins(site: Site) -> None:
    handle = await site.join()
    async with asyncio.timeout(20):
        while await handle.query("status") != "ready":
            await asyncio.sleep(0.05)
    await handle.signal("leave")
    await gone(handle)
