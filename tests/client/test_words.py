"""What a caller reads when something cannot be: a typed error, which says what, and what to do."""

import asyncio
import base64

import pytest
from temporalio.client import Client, WorkflowFailureError

from paddock.client import Paddock, sync
from paddock.client.errors import BadSpec, ClientError, Ended, NoSuchSandbox, PolicyDenied
from paddock.contracts import names
from paddock.contracts.report import Outcome
from tests.client.conftest import Playing


@pytest.mark.parametrize("name", ["nobody", "sandbox/nobody", "host/local/box-1", "a\nb", "", "x" * 2000, "\udcff"])
async def test_a_wrong_name_or_workflow_id_is_no_such_sandbox(paddock: Paddock, name: str) -> None:
    for call in (paddock.attach(name), paddock.status(name), paddock.report(name), paddock.stop(name)):
        with pytest.raises(NoSuchSandbox, match="no such sandbox") as wrong:
            await call
        assert "paddock sandbox ls --all" in wrong.value.info.remedy


async def test_the_workflow_id_of_another_type_is_no_sandbox(paddock: Paddock, temporal_client: Client) -> None:
    await paddock.apply_policy("version: 1\n")
    await temporal_client.start_workflow(names.POLICY_ROLLOUT, {"text": "x"}, id="a-policy", task_queue="control")
    with pytest.raises(NoSuchSandbox):
        await paddock.stop("a-policy")


async def test_an_update_to_an_ended_sandbox_says_how_it_ended(paddock: Paddock) -> None:
    box = await paddock.start(name="over")
    await paddock.stop("over", "enough")
    for call in (box.extend(600), box.run(["echo"]), paddock.attach("over")):
        with pytest.raises(Ended, match=r"the sandbox has ended: stopped \(enough\)") as wrong:
            await call
        assert wrong.value.report is not None
        assert "paddock sandbox show" in wrong.value.info.remedy
    await box.close()


async def test_stop_of_an_ended_sandbox_answers_its_report(paddock: Paddock) -> None:
    box = await paddock.start(name="ended")
    report = await paddock.stop("ended", "enough")
    assert await paddock.stop("ended", "once more") == report
    assert await box.stop("and again") == report
    assert report.reason == "enough"


async def test_an_extension_beyond_what_the_environment_allows_is_refused_in_the_hosts_words(paddock: Paddock) -> None:
    async with paddock.sandbox() as box:
        before = (await box.status()).lease_end
        with pytest.raises(PolicyDenied, match="the lease may end 28800 s from now at the latest"):
            await box.extend(29 * 86400)
        assert (await box.status()).lease_end == before
        for seconds in (5, 31 * 86400):
            with pytest.raises(BadSpec, match=f"lifetime_s: {seconds} is outside 30 to 2592000"):
                await box.extend(seconds)


async def test_run_in_a_sandbox_with_a_task_in_its_spec_is_refused(paddock: Paddock) -> None:
    async with paddock.sandbox(task={"argv": ["wait"]}) as box:
        with pytest.raises(BadSpec, match="runs the task in its spec and ends; start one without a task"):
            await box.run(["echo"])


async def test_one_task_at_a_time(paddock: Paddock) -> None:
    async with paddock.sandbox() as box:
        await box.run(["wait"])
        with pytest.raises(BadSpec, match="task 1 is not over; one task at a time"):
            await box.run(["echo"])


async def test_an_unknown_api_version_names_the_known_ones(paddock: Paddock, temporal_client: Client) -> None:
    with pytest.raises(BadSpec, match="this Paddock speaks v1") as wrong:
        await paddock.start(api_version="v9")
    assert wrong.value.info.field == "api_version"
    with pytest.raises(WorkflowFailureError) as failed:
        await temporal_client.execute_workflow("Sandbox", {"api_version": "v9"}, id="v9", task_queue="control")
    assert "this Paddock speaks v1" in str(failed.value.__cause__)


async def test_more_callers_than_keys_are_kept_are_still_let_in(paddock: Paddock, temporal: str) -> None:
    async with paddock.sandbox(name="popular") as box:
        await (await box.run(["echo", "hi"])).wait()
        key = paddock._key
        for number in range(70):
            public = base64.b64encode(number.to_bytes(32, "big")).decode()
            await box._handle.execute_update("attach", public)
        async with Paddock.connect(temporal) as other:
            found = await other.attach("popular")
            assert [line async for line in found.task(1).output()] == ["hi"]
            await found.close()
        assert paddock._key is key


# After the end


async def test_output_is_read_after_the_end_by_somebody_new(paddock: Paddock, temporal: str) -> None:
    async with paddock.sandbox(name="late") as box:
        await (await box.run(["echo", "one"])).result()
        await (await box.run(["echo", "two"])).result()
    async with Paddock.connect(temporal) as other:
        found = await other.reopen("late")
        assert [line async for line in found.task(1).output()] == ["one"]
        assert [line async for line in found.task(2).output()] == ["two"]
        assert (await found.task(2).wait()).result.exit == 0
        assert (await found.result()).outcome is Outcome.STOPPED
        await found.close()

    def work() -> list[str]:
        with sync.Paddock.connect(temporal) as paddock:
            return list(paddock.reopen("late").task(2).output())

    assert await asyncio.to_thread(work) == ["two"]


async def test_one_that_runs_is_attached_to(paddock: Paddock) -> None:
    async with paddock.sandbox(name="open") as box:
        await (await box.run(["echo", "one"])).result()
        found = await paddock.reopen("open")
        assert not found.late
        assert [line async for line in found.task(1).output()] == ["one"]
        await found.close()


async def test_a_host_that_has_forgotten_says_for_how_long_it_remembers(
    paddock: Paddock, playing: Playing, temporal: str
) -> None:
    async with paddock.sandbox(name="old") as box:
        await (await box.run(["echo", "one"])).result()
    playing.forgotten.add(box.sandbox_id)
    playing.rig.link.keys.pop(box.sandbox_id)
    async with Paddock.connect(temporal) as other:
        found = await other.reopen("old")
        with pytest.raises(NoSuchSandbox, match="keeps its output no more: it does for an hour"):
            await found.task(1).wait()
        await found.close()


async def test_a_late_reader_that_is_malformed_fails_at_once(temporal_client: Client, playing: Playing) -> None:
    for argument in ({}, {"sandbox_id": "sb-1", "environment": "../x", "host": "h", "caller_key": "k"}):
        with pytest.raises(WorkflowFailureError) as failed:
            await temporal_client.execute_workflow("LateReader", argument, id="late", task_queue="control")
        assert "LateCaller" in str(failed.value.__cause__)


async def test_errors_carry_what_a_service_needs(paddock: Paddock) -> None:
    with pytest.raises(ClientError) as wrong:
        await paddock.attach("nobody")
    assert wrong.value.info.model_dump(mode="json") == {
        "kind": "not-found",
        "message": "no such sandbox",
        "field": "nobody",
        "remedy": "`paddock sandbox ls --all` lists them",
    }
