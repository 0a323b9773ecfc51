"""The SDK against a real server: what a service that runs tasks in sandboxes relies on."""

import asyncio
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from temporalio.client import Client

from paddock.client import Paddock, sync
from paddock.client import stream as client_stream
from paddock.client.errors import BadSpec, HostLost, NoSuchSandbox, Refused, SandboxLost, TaskFailed
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.report import Gone, Outcome
from paddock.contracts.status import State
from tests.client.conftest import Playing
from workflows.steps import BEFORE_THE_TASK


async def test_a_task_in_the_spec_runs_and_the_report_has_every_receipt(paddock: Paddock) -> None:
    box = await paddock.start(task={"argv": ["echo", "hello", "there"]})
    assert [line async for line in box.task().output()] == ["hello there"]
    report = await box.result()
    assert report.outcome is Outcome.SUCCEEDED
    assert {r.resource for r in report.receipts} == {r for step in BEFORE_THE_TASK for r in step.receipts}
    assert all(r.gone is Gone.PROVED for r in report.receipts)


async def test_a_block_runs_several_tasks_and_ends_the_sandbox(paddock: Paddock) -> None:
    async with paddock.sandbox() as box:
        assert (await (await box.run(["echo", "one"])).result()).exit == 0
        second = await box.run(["exit", "3"])
        assert (second.number, (await second.result()).exit) == (2, 3)
        assert (await box.status()).state is State.READY
    assert box.report is not None
    assert box.report.outcome is Outcome.STOPPED
    assert box.report.receipts


async def test_status_is_never_older_than_the_end_of_a_task_that_was_seen(paddock: Paddock, playing: Playing) -> None:
    playing.workflow_hears_late_s = 0.5
    async with paddock.sandbox() as box:
        assert (await (await box.run(["echo", "one"])).result()).exit == 0
        assert (await box.status()).state is State.READY


async def test_an_error_in_the_block_ends_the_sandbox_and_goes_on(paddock: Paddock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with paddock.sandbox() as box:
            _ = 1 / 0
    assert box.report is not None
    assert box.report.outcome is Outcome.STOPPED


async def test_inputs_reach_the_task_and_outputs_come_back(paddock: Paddock, playing: Playing, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "fix.py").write_text("print(1)\n")
    async with paddock.sandbox(
        outputs=[{"glob": "out/*"}], task={"argv": ["cat"]}, inputs={"repo": tmp_path / "repo"}
    ) as box:
        lines = [line async for line in box.task().output()]
        await box.result()
    packed = playing.inputs[box.sandbox_id]
    assert lines[0] == hashlib.sha256(packed).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["repo", "repo/fix.py"]
    assert box.report is not None
    [path] = await box.download(box.report.outputs, tmp_path / "result")
    assert path == tmp_path / "result" / "out" / "fixed.txt"
    assert path.read_bytes() == b"fixed\n"


async def test_inputs_of_a_later_task_are_there_before_it_starts(paddock: Paddock, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 200_000)
    async with paddock.sandbox() as box:
        run = await box.run(["cat"], inputs={"data": tmp_path / "data"})
        lines = [line async for line in run.output()]
        assert len(lines[0]) == 64


async def test_a_program_that_is_not_there_is_a_typed_error_and_the_sandbox_goes_on(paddock: Paddock) -> None:
    async with paddock.sandbox() as box:
        with pytest.raises(TaskFailed, match="no such program"):
            await (await box.run(["missing"])).result()
        assert (await (await box.run(["echo"])).result()).exit == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"lifetime_s": 5}, "lifetime_s"),
        ({"nonsense": 1}, "nonsense"),
        ({"task": {"argv": []}}, "task"),
        ({"shape": {"vcpu": 99}}, "shape.vcpu"),
    ],
)
async def test_a_spec_that_cannot_be_names_its_field(paddock: Paddock, fields: dict[str, object], field: str) -> None:
    with pytest.raises(BadSpec) as wrong:
        await paddock.start(**fields)  # type: ignore[arg-type]
    assert wrong.value.info.field == field


async def test_an_input_that_is_not_there_starts_nothing(
    paddock: Paddock, tmp_path: Path, temporal_client: Client
) -> None:
    with pytest.raises(BadSpec, match="no such file"):
        await paddock.start(name="never", inputs={"x": tmp_path / "absent"})
    with pytest.raises(NoSuchSandbox):
        await paddock.status("never")


async def test_a_refusal_is_typed_and_carries_the_report(paddock: Paddock, playing: Playing) -> None:
    playing.refuse = ErrorInfo(kind=ErrorKind.NO_SLOT, message="no slot", remedy="wait")
    with pytest.raises(Refused, match="no slot") as wrong:
        await paddock.start()
    assert wrong.value.report is not None
    assert wrong.value.report.outcome is Outcome.REFUSED
    assert wrong.value.info.remedy == "wait"


@pytest.mark.parametrize(("signal", "error"), [("sandbox_lost", SandboxLost), ("host_lost", HostLost)])
async def test_a_loss_in_the_middle_of_a_task_is_typed(
    paddock: Paddock, temporal_client: Client, signal: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_stream, "QUIET_S", 0.3)
    box = await paddock.start(task={"argv": ["wait"]})
    reading = asyncio.create_task(box.task().wait())
    while (await box.status()).state is not State.RUNNING:
        await asyncio.sleep(0.02)
    await temporal_client.get_workflow_handle(box.workflow_id).signal(signal, "its process died")
    with pytest.raises(error) as wrong:
        await asyncio.wait_for(reading, 10)
    assert wrong.value.report is not None  # type: ignore[attr-defined]


async def test_a_host_that_says_lost_on_the_stream_leaves_the_last_word_to_the_report(
    paddock: Paddock, temporal_client: Client, playing: Playing
) -> None:
    box = await paddock.start(task={"argv": ["wait"]})
    reading = asyncio.create_task(box.task().wait())
    while (await box.status()).state is not State.RUNNING:
        await asyncio.sleep(0.02)
    await playing.rig.link.output(1, box.sandbox_id).lose()
    await asyncio.sleep(0.2)
    assert not reading.done()
    await temporal_client.get_workflow_handle(box.workflow_id).signal("sandbox_lost", "its process died")
    with pytest.raises(SandboxLost, match="its process died") as wrong:
        await asyncio.wait_for(reading, 10)
    assert wrong.value.report is not None
    assert wrong.value.report.receipts


async def test_another_caller_attaches_with_a_key_of_its_own(paddock: Paddock) -> None:
    box = await paddock.start(name="shared")
    await (await box.run(["echo", "seen", "by", "both"])).result()
    other = await paddock.attach("shared")
    assert [line async for line in other.task(1).output()] == ["seen by both"]
    report = await paddock.stop("shared", "done")
    assert report.outcome is Outcome.STOPPED
    assert await paddock.report("shared") == report
    with pytest.raises(NoSuchSandbox):
        await paddock.attach("shared")
    await other.close()
    await box.close()


async def test_a_list_has_what_runs_and_with_all_what_ended(paddock: Paddock) -> None:
    async with paddock.sandbox(name="listed") as box:
        for _ in range(200):
            found = {info.name: info async for info in paddock.list()}
            if "listed" in found and found["listed"].host:
                break
            await asyncio.sleep(0.05)
        assert found["listed"].sandbox_id == box.sandbox_id
        assert found["listed"].policy == "deny-all"
    for _ in range(200):
        if "listed" not in {info.name async for info in paddock.list()}:
            break
        await asyncio.sleep(0.05)
    assert "listed" in {info.name async for info in paddock.list(all_=True)}


async def test_a_sandbox_that_a_person_started_in_the_ui_is_found_by_its_id(
    paddock: Paddock, temporal_client: Client
) -> None:
    await temporal_client.start_workflow("Sandbox", id="some-uuid", task_queue="control")
    box = await paddock.attach("some-uuid")
    assert (await (await box.run(["exit", "0"])).result()).exit == 0
    await box.stop("done")


async def test_a_lease_moves(paddock: Paddock) -> None:
    async with paddock.sandbox(lifetime_s=60) as box:
        before = (await box.status()).lease_end
        after = (await box.extend(600)).lease_end
        assert before is not None
        assert after is not None
        assert after > before


async def test_a_policy_is_kept_under_its_name(paddock: Paddock) -> None:
    applied = await paddock.apply_policy("version: 1\n", file="p.yaml", author="me")
    assert (applied.name, applied.revision) == ("repo-fixer", 3)


async def test_the_synchronous_twin_does_the_same(temporal: str, playing: Playing, tmp_path: Path) -> None:
    def work() -> tuple[list[str], int | None, Outcome]:
        with sync.Paddock.connect(temporal) as paddock, paddock.sandbox() as box:
            run = box.run(["echo", "a", "b"])
            lines = list(run.output())
            code = run.result().exit
        assert box.report is not None
        return lines, code, box.report.outcome

    assert await asyncio.to_thread(work) == (["a b"], 0, Outcome.STOPPED)
