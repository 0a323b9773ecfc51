"""`paddock run` as its users and their scripts see it: output, exit codes, and what Ctrl-C does."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from paddock.cli import spec as cli_spec
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.report import Outcome, SandboxReport
from tests.cli.conftest import Playing, Program, until


async def test_output_goes_to_stdout_and_receipts_to_stderr(program: Program) -> None:
    ended = await program("run", "--", "echo", "hello", "-n")
    assert (ended.code, ended.out) == (0, "hello -n\n")
    assert "succeeded" in ended.err
    for resource in ("vm", "slot", "credential"):
        assert resource in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["exit", "3"], 3),
        (["die", "9"], 137),
        (["die", "9", "late"], 124),
        (["missing"], 127),
        (["text"], 126),
    ],
)
async def test_the_exit_code_is_the_tasks_own(program: Program, argv: list[str], code: int) -> None:
    ended = await program("run", "-q", *argv)
    assert ended.code == code
    assert "Traceback" not in ended.err


async def test_json_is_the_report_on_the_last_line(program: Program) -> None:
    ended = await program("run", "--json", "--", "echo", "hello")
    first, last = ended.out.splitlines()
    assert first == "hello"
    assert SandboxReport.model_validate_json(last).outcome is Outcome.SUCCEEDED
    assert ended.err == ""


async def test_files_go_in_and_come_out(program: Program, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.txt").write_text("a")
    ended = await program("run", "--in", str(tmp_path / "repo"), "--out", str(tmp_path / "out"), "--", "cat")
    assert ended.code == 0
    assert len(ended.out.splitlines()[0]) == 64
    assert (tmp_path / "out" / "out" / "fixed.txt").read_text() == "fixed\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "1"], "memory_mib"),
        (["--in", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--policy", "/nowhere/policy.yaml"], "policy file cannot be read"),
        (["--lifetime", "1s"], "lifetime_s"),
    ],
)
async def test_bad_input_is_said_and_exits_125(program: Program, options: list[str], words: str) -> None:
    ended = await program("run", *options, "--", "echo")
    assert ended.code == 125
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("options", [["--env", "=x"], ["--lifetime", "soon"], ["--nonsense"], []])
async def test_wrong_use_exits_2(program: Program, options: list[str]) -> None:
    assert (await program("run", *options)).code == 2


async def test_a_refusal_says_what_to_do(program: Program, playing: Playing) -> None:
    playing.refuse = ErrorInfo(kind=ErrorKind.NO_SLOT, message="no host had a free slot", remedy="wait for one")
    ended = await program("run", "--json", "--", "echo")
    assert ended.code == 125
    assert "no host had a free slot" in ended.err
    assert "wait for one" in ended.err
    assert SandboxReport.model_validate_json(ended.out.splitlines()[-1]).outcome is Outcome.REFUSED


async def test_a_policy_file_is_kept_first_and_named_with_its_revision(program: Program, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("version: 1\n")
    process = await program.start("run", "--name", "fenced", "--policy", str(tmp_path / "p.yaml"), "--", "wait")

    async def fenced() -> bool:
        shown = await program("sandbox", "show", "fenced", "--json")
        return shown.code == 0 and json.loads(shown.out)["policy"] == "repo-fixer@3"

    await until(fenced)
    process.send_signal(signal.SIGINT)
    assert (await program.end(process)).code == 130


async def test_ctrl_c_stops_the_sandbox_and_waits_for_its_receipts(program: Program) -> None:
    process = await program.start("run", "--name", "interrupted", "--", "wait")

    async def running() -> bool:
        return (await program("sandbox", "show", "interrupted")).out.find("running") >= 0

    await until(running)
    process.send_signal(signal.SIGINT)
    ended = await program.end(process)
    assert ended.code == 130
    assert "stopped" in ended.err
    assert "slot" in ended.err


async def test_a_second_ctrl_c_leaves_at_once(program: Program, playing: Playing) -> None:
    playing.rig.link.keys.clear()
    process = await program.start("run", "--name", "twice", "--", "wait")

    async def running() -> bool:
        return (await program("sandbox", "show", "twice")).out.find("running") >= 0

    await until(running)
    playing.hold_the_end.clear()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(5):
        assert await process.wait() == 130
    playing.hold_the_end.set()


async def test_no_server_is_an_error_in_words(alone: Program) -> None:
    ended = await alone("run", "--address", "127.0.0.1:1", "--json", "--", "echo")
    assert ended.code == 125
    assert "does not answer" in ended.err
    assert "Traceback" not in ended.err
    assert json.loads(ended.out)["error"]["kind"] == "unreachable"


async def test_help_does_not_wait_for_temporal() -> None:
    code = "import sys; from paddock.cli.app import app; app(['run', '--help'], standalone_mode=False);"
    code += "sys.exit('temporalio' in sys.modules or 'cryptography' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)])
def test_a_duration_is_seconds_or_has_a_unit(text: str, value: int) -> None:
    assert cli_spec.seconds(text) == value


def test_an_input_says_its_place_or_has_one(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_text("")
    assert cli_spec.place(str(tmp_path)) == (".", tmp_path)
    assert cli_spec.place(f"{tmp_path}:src") == ("src", tmp_path)
    assert cli_spec.place(str(tmp_path / "a:b")) == ("a:b", tmp_path / "a:b")
