"""A start may be repeated: by its name it finds what runs, and never starts a thing twice that was wanted once."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from paddock.client import Paddock, sync
from paddock.client.errors import AlreadyExists, BadSpec
from paddock.client.start import Origin, Start, differing
from paddock.contracts import names
from paddock.contracts.names import sandbox_workflow_id
from paddock.contracts.report import Outcome, SandboxReport
from paddock.contracts.spec import SandboxSpec
from tests.client.conftest import Playing

FIELDS: dict[str, Any] = {"lifetime_s": 600, "shape": {"memory_mib": 512}}


@pytest.fixture
async def other(temporal: str, playing: Playing) -> AsyncGenerator[Paddock, None]:
    """Another service, with a connection and a key of its own."""
    async with Paddock.connect(temporal) as client:
        yield client


async def test_get_or_create_makes_one_and_then_finds_it(paddock: Paddock, other: Paddock) -> None:
    first = await paddock.get_or_create("shared-1", **FIELDS)
    again = await other.get_or_create("shared-1", **FIELDS)
    assert (first.made, again.made) == (True, False)
    assert (again.sandbox_id, again.host) == (first.sandbox_id, first.host)
    assert (await (await again.run(["echo", "hi"])).result()).exit == 0
    assert [line async for line in first.task(1).output()] == ["hi"]
    await first.stop("done")
    await again.close()


async def test_many_callers_at_once_get_one_sandbox(paddock: Paddock, other: Paddock) -> None:
    boxes = await asyncio.gather(*(who.get_or_create("shared-2") for who in (paddock, other) * 4))
    assert len({box.sandbox_id for box in boxes}) == 1
    assert sum(box.made for box in boxes) == 1
    await boxes[0].stop("done")
    for box in boxes:
        await box.close()


async def test_get_or_create_is_one_call(paddock: Paddock, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(paddock, monkeypatch)
    box = await paddock.start()
    assert calls == ["execute_multi_operation"]
    await box.stop("done")
    calls.clear()
    box = await paddock.get_or_create("counted")
    # the second looks only at how the sandbox of this name was started
    assert calls == ["execute_multi_operation", "get_workflow_execution_history"]
    await box.stop("done")


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({**FIELDS, "policy": "repo-fixer"}, ("policy",)),
        ({**FIELDS, "shape": {"memory_mib": 1024}}, ("shape.memory_mib",)),
        ({"task": {"argv": ["echo"]}}, ("lifetime_s", "shape.memory_mib", "task")),
        ({**FIELDS, "owner": "somebody"}, ("owner",)),
    ],
)
async def test_one_name_and_another_spec_is_an_error_that_names_the_fields(
    paddock: Paddock, other: Paddock, asked: dict[str, Any], differs: tuple[str, ...]
) -> None:
    async with paddock.sandbox(name="taken", **FIELDS) as box:
        for call in (other.get_or_create("taken", **asked), other.start(name="taken", **asked)):
            with pytest.raises(AlreadyExists, match="is running, started with another spec: ") as wrong:
                await call
            assert wrong.value.differs == differs
            assert all(field in wrong.value.info.message for field in differs)
            assert isinstance(wrong.value, BadSpec)
        assert (await (await box.run(["exit", "0"])).result()).exit == 0


async def test_a_default_that_is_written_out_is_the_same_spec(paddock: Paddock, other: Paddock) -> None:
    box = await paddock.start(name="plain")
    again = await other.start(SandboxSpec(image="base", lifetime_s=3600, api_version="v1"), name="plain")
    assert again.sandbox_id == box.sandbox_id
    await box.stop("done")


async def test_one_that_was_started_in_the_ui_with_an_empty_box_is_found(
    paddock: Paddock, temporal_client: Client
) -> None:
    await temporal_client.start_workflow("Sandbox", id=sandbox_workflow_id("from-ui"), task_queue="control")
    box = await paddock.get_or_create("from-ui")
    assert not box.made
    with pytest.raises(AlreadyExists) as wrong:
        await paddock.get_or_create("from-ui", image="other")
    assert wrong.value.differs == ("image",)
    await box.stop("done")


async def test_a_field_of_a_newer_client_is_a_difference(temporal_client: Client) -> None:
    newer = Origin("", {"gpu": 1})
    assert newer.differences(SandboxSpec()) == ("gpu",)


async def test_a_name_whose_sandbox_ended_starts_a_new_one(paddock: Paddock) -> None:
    first = await paddock.start(name="again")
    await first.stop("done")
    second = await paddock.start(name="again")
    assert second.made
    assert second.sandbox_id != first.sandbox_id
    await second.stop("done")


async def test_a_block_takes_no_name_that_is_taken_unless_it_may_share(paddock: Paddock, other: Paddock) -> None:
    async with paddock.sandbox(name="block") as box:
        with pytest.raises(AlreadyExists, match="a sandbox of this name is running"):
            async with other.sandbox(name="block"):
                pass
        async with other.sandbox(name="block", get_or_create=True) as shared:
            assert shared.sandbox_id == box.sandbox_id
        assert (await (await box.run(["exit", "0"])).result()).exit == 0


async def test_a_shared_block_that_made_it_leaves_it_running(paddock: Paddock, other: Paddock) -> None:
    async with paddock.sandbox(name="left", get_or_create=True) as box:
        assert box.made
    found = await other.attach("left")
    assert found.sandbox_id == box.sandbox_id
    await found.stop("done")


@pytest.mark.parametrize("name", ["a/b", "", " ", "ä", "-x", "x" * 101, "sandbox/x", "a\nb", "\udcff"])
async def test_a_name_that_cannot_be_says_what_is_allowed(paddock: Paddock, name: str) -> None:
    with pytest.raises(BadSpec, match="1 to 100 letters, digits"):
        await paddock.get_or_create(name)


async def test_the_synchronous_twin_gets_or_creates(temporal: str, playing: Playing) -> None:
    def work() -> tuple[bool, bool, bool]:
        with sync.Paddock.connect(temporal) as paddock:
            first = paddock.get_or_create("twin", **FIELDS)
            with paddock.sandbox(name="twin", get_or_create=True, **FIELDS) as second:
                same = second.sandbox_id == first.sandbox_id
            with pytest.raises(AlreadyExists, match="lifetime_s"):
                paddock.start(name="twin", lifetime_s=700, shape={"memory_mib": 512})
            first.stop("done")
            return first.made, second.made, same

    assert await asyncio.to_thread(work) == (True, False, True)


# A start whose answer is lost


@pytest.mark.parametrize("name", ["lost-1", None])
async def test_a_start_whose_answer_is_lost_is_repeated_and_finds_its_own(
    paddock: Paddock, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    lost = lose_answers(paddock, monkeypatch, 2)
    box = await paddock.start(name=name)
    assert lost == ["lost"], "the next try asks for what the first one made, and starts nothing"
    assert box.made
    assert (await (await box.run(["echo", "once"])).result()).exit == 0
    assert (await box.status()).tasks == 1
    await box.stop("done")


@pytest.mark.parametrize("name", ["lost-2", None])
async def test_a_task_that_is_over_when_its_start_is_repeated_does_not_run_twice(
    paddock: Paddock, temporal_client: Client, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    async def until_it_ended(workflow_id: str) -> None:
        await temporal_client.get_workflow_handle(workflow_id).result()

    lose_answers(paddock, monkeypatch, 1, until_it_ended)
    box = await paddock.start(name=name, task={"argv": ["echo", "once"]})
    assert [line async for line in box.task().output()] == ["once"]
    assert (await box.result()).outcome is Outcome.SUCCEEDED
    await (await paddock.start()).stop("so that the index has seen what came before")
    assert len([run async for run in runs(temporal_client, box.workflow_id)]) == 1


async def test_a_task_does_not_run_twice_when_the_server_knew_the_start_and_forgot_the_update(
    paddock: Paddock, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies between the two: what it has on disk is a sandbox that nobody attached to, and that ends."""
    once, tries = Start._once, 0

    async def half_lost(self: Start) -> Any:
        nonlocal tries
        tries += 1
        if tries > 1:
            return await once(self)
        handle = await temporal_client.start_workflow(
            names.SANDBOX,
            self._spec,
            id=self._id,
            task_queue=names.CONTROL_QUEUE,
            result_type=SandboxReport,
            memo={"paddock-start": self._token},
        )
        await handle.result()
        raise RPCError("the server died", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(Start, "_once", half_lost)
    box = await paddock.start(name="half", task={"argv": ["echo", "once"]})
    assert box.made
    assert [line async for line in box.task().output()] == ["once"]
    assert (await box.result()).outcome is Outcome.SUCCEEDED
    await (await paddock.start()).stop("so that the index has seen what came before")
    assert len([run async for run in runs(temporal_client, box.workflow_id)]) == 1


async def test_a_service_that_died_and_asks_again_by_its_request_gets_the_same_sandbox(
    paddock: Paddock, other: Paddock
) -> None:
    asked: dict[str, Any] = {"name": "job-7", "request_id": "order 7", "task": {"argv": ["echo", "once"]}}
    box = await paddock.start(**asked)
    report = await box.result()
    again = await other.start(**asked)
    assert (again.made, again.sandbox_id) == (False, box.sandbox_id)
    assert [line async for line in again.task().output()] == ["once"]
    assert await again.result() == report
    another = await other.start(**{**asked, "request_id": "order 8"})
    assert another.made
    assert another.sandbox_id != box.sandbox_id
    await another.result()
    with pytest.raises(AlreadyExists) as wrong:
        await paddock.start(**{**asked, "request_id": "order 8", "task": {"argv": ["echo", "twice"]}})
    assert wrong.value.differs == ("task.argv",)


async def test_a_request_while_its_sandbox_runs_is_the_same_one(paddock: Paddock, other: Paddock) -> None:
    box = await paddock.start(name="job-8", request_id="r")
    again = await other.start(name="job-8", request_id="r")
    assert (again.made, again.late, again.sandbox_id) == (False, False, box.sandbox_id)
    assert (await (await again.run(["exit", "0"])).result()).exit == 0
    await again.stop("done")
    await box.close()


@pytest.mark.parametrize(("name", "request_id"), [(None, "r"), ("n", ""), ("n", "a\nb"), ("n", "x" * 201)])
async def test_a_request_that_cannot_be_is_refused(paddock: Paddock, name: str | None, request_id: str) -> None:
    with pytest.raises(BadSpec, match="request_id"):
        await paddock.start(name=name, request_id=request_id)


def runs(client: Client, workflow_id: str) -> Any:
    return client.list_workflows(f'WorkflowId="{workflow_id}"')


def lose_answers(paddock: Paddock, monkeypatch: pytest.MonkeyPatch, times: int, then: Any = None) -> list[str]:
    """The server does what it is asked, and the next `times` answers to a start never arrive."""
    service, lost = paddock.client.workflow_service, []
    call = service.execute_multi_operation

    async def losing(request: Any, **options: Any) -> Any:
        answer = await call(request, **options)
        if len(lost) < times:
            lost.append("lost")
            if then:
                await then(request.operations[0].start_workflow.workflow_id)
            raise RPCError("connection reset", RPCStatusCode.UNAVAILABLE, b"")
        return answer

    monkeypatch.setattr(service, "execute_multi_operation", losing)
    return lost


def count_calls(paddock: Paddock, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls to the server from here on."""
    service, calls = paddock.client.service_client, []
    real = service._rpc_call

    async def counting(rpc: str, *arguments: Any, **options: Any) -> Any:
        calls.append(rpc)
        return await real(rpc, *arguments, **options)

    monkeypatch.setattr(service, "_rpc_call", counting)
    return calls


def test_differences_are_paths() -> None:
    assert differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}, "e": 0}) == ["b.c", "e"]
