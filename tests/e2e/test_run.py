"""`paddock run` and its relatives against a running system: exit codes, output, files, and every clear refusal."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Up

pytestmark = pytest.mark.vm


def test_echo_prints_and_ends_with_every_receipt(up: Up) -> None:
    code, report, output = up.report("--", "echo", "hello")
    assert (code, output) == (0, "hello")
    assert report["outcome"] == "succeeded"
    resources = {receipt["resource"] for receipt in report["receipts"]}
    assert resources >= {"vm", "supervisor", "rundir", "socket", "disk", "slot", "credential"}
    assert all(receipt["gone"] == "proved" for receipt in report["receipts"])
    assert report["audit"]["verified"]
    assert report["audit"]["events"] >= 5


def test_stdout_and_stderr_stay_apart(up: Up) -> None:
    done = up.run("run", "--quiet", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert "err\n" in done.stderr


def test_output_without_a_line_break_leaves_the_report_on_a_line_of_its_own(up: Up) -> None:
    code, report, output = up.report("--", "printf", "no line break")
    assert (code, output, report["task"]["output_bytes"]) == (0, "no line break", len("no line break"))


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -TERM $$"], 143),
    ],
)
def test_the_exit_code_is_the_tasks_own(up: Up, argv: list[str], code: int) -> None:
    assert up.run("run", "--", *argv).returncode == code


def test_a_task_that_takes_too_long_is_ended_with_124(up: Up) -> None:
    code, report, _ = up.report("--timeout", "2", "--", "sleep", "60")
    assert (code, report["task"]["reason"]) == (124, "timeout")


def test_output_comes_while_the_task_runs(up: Up) -> None:
    argv = ["run", "--quiet", "--", "sh", "-c", "date +%s.%N; sleep 2; echo late"]
    began = time.time()
    environment_run = up.run(*argv)
    assert environment_run.returncode == 0
    assert time.time() - began > 2
    assert environment_run.stdout.endswith("late\n")


def test_a_directory_goes_in_and_files_come_out(up: Up, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "numbers.txt").write_text("1\n2\n3\n")
    target = tmp_path / "out"
    script = (
        "import pathlib; work = pathlib.Path('/work'); numbers = next(work.rglob('numbers.txt')).open(); "
        "(work / 'sum.txt').write_text(str(sum(map(int, numbers))))"
    )
    done = up.run("run", "--in", str(source), "--out", str(target), "--", "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    assert [file.read_text() for file in target.rglob("sum.txt")] == ["6"]


def test_the_guest_is_not_root_and_has_no_network_card(up: Up) -> None:
    code, _, output = up.report("--", "sh", "-c", "id -u; ls /sys/class/net; cat /proc/1/comm")
    assert code == 0
    assert output.split()[:2] == ["1000", "lo"]


def test_what_one_task_writes_is_gone_with_its_sandbox(up: Up) -> None:
    up.run("run", "--", "sh", "-c", "echo mine > /work/left", check=True)
    assert up.run("run", "--", "cat", "/work/left").returncode == 1


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["--policy", "no-such", "--", "true"], "unknown-policy", "no-such"),
        (["--image", "no-such", "--", "true"], "unknown-image", "no-such"),
        (["--memory", "900000", "--", "true"], "bad-spec", "memory_mib"),
        (["--memory", "65536", "--", "true"], "bad-spec", "memory_mib"),
    ],
)
def test_what_cannot_be_had_is_refused_with_words_and_125(up: Up, words: list[str], kind: str, says: str) -> None:
    done = up.run("run", *words)
    assert done.returncode == 125
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    machine = up.run("run", "--json", *words)
    assert machine.returncode == 125
    assert kind in machine.stdout


def test_a_bad_policy_is_refused_with_line_and_column(up: Up, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: paddock/v1\nkind: Policy\nmetadata: {name: bad}\nspec:\n  netwrok: []\n")
    for words in (["run", "--policy", str(bad), "--", "true"], ["policy", "check", str(bad)]):
        done = up.run(*words)
        assert done.returncode == (125 if words[0] == "run" else 1)
        assert "5:3" in done.stdout + done.stderr
        assert "netwrok" in done.stdout + done.stderr


def test_an_input_that_cannot_be_read_is_refused_before_anything_starts(up: Up, tmp_path: Path) -> None:
    done = up.run("run", "--in", str(tmp_path / "absent"), "--", "true")
    assert done.returncode in (2, 125)
    assert "absent" in done.stderr


def test_output_over_the_limit_ends_the_task_and_says_so(up: Up) -> None:
    spec = {"task": {"argv": ["yes"], "output_limit_bytes": 100_000}}
    report = start_by_sdk(up, spec)
    assert report["outcome"] in ("error", "failed")
    assert report["task"]["output_bytes"] == 100_000
    assert report["error"]["kind"] == "output-limit"


def test_a_flood_on_the_channel_is_bounded_and_whole(up: Up) -> None:
    done = up.run("run", "--quiet", "--", "sh", "-c", "head -c 20000000 /dev/zero", timeout=200)
    assert done.returncode == 0
    assert len(done.stdout) == 20_000_000


def test_a_task_that_forks_without_end_is_ended_with_its_sandbox(up: Up) -> None:
    code, report, _ = up.report("--timeout", "6", "--", "sh", "-c", "f() { f | f & }; f; sleep 60", timeout=200)
    assert code in (124, 125) or report["outcome"] == "failed"
    assert all(receipt["gone"] == "proved" for receipt in report["receipts"])


def test_a_session_runs_tasks_keeps_its_files_and_stops(up: Up) -> None:
    from paddock.client.sync import Paddock

    with Paddock.connect(str(up.info["temporal"])) as paddock, paddock.sandbox() as box:
        box.run(["sh", "-c", "echo kept > /work/file"]).result()
        time.sleep(4)  # long enough to be paused: the sandbox must wake by itself
        run = box.run(["cat", "/work/file"])
        assert list(run.output()) == ["kept\n"] or list(run.output()) == ["kept"]
        assert run.result().exit == 0
        shown = up.run("sandbox", "ls", "--json", check=True)
        assert str(json.loads(shown.stdout)).count("sandbox/") >= 1


def start_by_sdk(up: Up, spec: dict[str, object]) -> dict[str, object]:
    """The report of a sandbox started with exactly this spec."""
    import asyncio

    from temporalio.client import WorkflowFailureError

    from paddock.contracts import names
    from paddock.temporal.connect import connect

    async def start() -> dict[str, object]:
        client = await connect(str(up.info["temporal"]))
        handle = await client.start_workflow(
            names.SANDBOX, spec, id=f"e2e-{time.time_ns()}", task_queue=names.CONTROL_QUEUE
        )
        try:
            return dict(await handle.result())
        except WorkflowFailureError as failure:
            return dict(failure.cause.details[0])  # type: ignore[union-attr]

    return asyncio.run(start())


def test_an_empty_object_starts_a_working_sandbox_from_any_client(up: Up) -> None:
    report = start_by_sdk(up, {"task": {"argv": ["true"]}})
    assert report["outcome"] == "succeeded"


def test_without_a_free_slot_a_run_is_refused_in_time(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"slots": 1}))
    here = Up(tmp_path / "state", config).start()
    try:
        holder = subprocess.Popen(
            [*here_argv(here), "run", "--quiet", "--state", str(here.state), "--", "sh", "-c", "echo in; sleep 30"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout
        assert holder.stdout.readline() == "in\n"
        report = start_by_sdk(here, {"task": {"argv": ["true"]}, "place_timeout_s": 1})
        assert report["outcome"] == "refused"
        assert report["error"]["kind"] == "no-slot"  # type: ignore[index]
        assert report["error"]["remedy"]  # type: ignore[index]
        holder.terminate()
        holder.wait(30)
    finally:
        assert here.stop() == 0


def here_argv(up: Up) -> list[str]:
    from tests.e2e.conftest import PADDOCK

    return [PADDOCK]
