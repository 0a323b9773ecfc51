"""`paddock sandbox`: what runs is listed, shown, entered, read and ended."""

import json
from pathlib import Path

import pytest

from paddock.contracts.report import Outcome, SandboxReport
from tests.cli.conftest import Program, until
from tests.client.conftest import Playing


async def start(program: Program, playing: Playing, name: str) -> None:
    from paddock.client import Paddock

    async with Paddock.connect(program.address) as paddock:
        await (await paddock.start(name=name)).close()


async def test_exec_runs_one_task_after_another_with_their_exit_codes(program: Program, playing: Playing) -> None:
    await start(program, playing, "session")
    first = await program("sandbox", "exec", "session", "--", "echo", "--flag")
    assert (first.code, first.out) == (0, "--flag\n")
    assert (await program("sandbox", "exec", "session", "exit", "7")).code == 7
    assert (await program("sandbox", "exec", "session", "missing")).code == 127
    stopped = await program("sandbox", "stop", "session", "--json")
    assert SandboxReport.model_validate_json(stopped.out).outcome is Outcome.STOPPED
    late = await program("sandbox", "exec", "session", "echo")
    assert late.code == 125
    assert "the sandbox has ended: stopped" in late.err


async def test_logs_begin_at_the_beginning_of_the_last_task(program: Program, playing: Playing) -> None:
    await start(program, playing, "logged")
    await program("sandbox", "exec", "logged", "echo", "one")
    await program("sandbox", "exec", "logged", "echo", "two")
    assert (await program("sandbox", "logs", "logged")).out == "two\n"
    assert (await program("sandbox", "logs", "logged", "-f", "--task", "1")).out == "one\n"
    await program("sandbox", "stop", "logged")


async def test_ls_and_show_follow_a_sandbox_to_its_receipts(program: Program, playing: Playing) -> None:
    await start(program, playing, "seen")

    async def listed() -> bool:
        lines = (await program("sandbox", "ls", "--json")).out.splitlines()
        return any(json.loads(line)["name"] == "seen" and json.loads(line)["host"] for line in lines)

    await until(listed)
    assert "\nseen\t" in (await program("sandbox", "ls")).out
    assert json.loads((await program("sandbox", "show", "seen", "--json")).out)["state"] == "ready"
    assert "slot" in (await program("sandbox", "stop", "seen")).err
    shown = await program("sandbox", "show", "seen", "--json")
    assert SandboxReport.model_validate_json(shown.out).receipts


async def test_a_sandbox_that_is_not_there_is_said(program: Program) -> None:
    for command in ("show", "stop", "logs"):
        ended = await program("sandbox", command, "nobody")
        assert ended.code == 2
        assert "no such sandbox" in ended.err
        assert "paddock sandbox ls" in ended.err


# start


async def test_start_prints_the_name_and_exec_works_in_it(program: Program, playing: Playing, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    begun = await program("sandbox", "start", "--in", str(tmp_path / "data"), "--memory", "512", "--idle", "10m")
    assert (begun.code, begun.err) == (0, "")
    name = begun.out.strip()
    assert len((await program("sandbox", "exec", name, "--", "cat")).out.splitlines()[0]) == 64
    ended = await program("sandbox", "stop", name, "--json")
    assert SandboxReport.model_validate_json(ended.out).outcome is Outcome.STOPPED


async def test_start_again_finds_the_same_one_and_other_options_are_named(program: Program, playing: Playing) -> None:
    first = json.loads((await program("sandbox", "start", "--name", "mine", "--json")).out)
    assert (first["name"], first["made"]) == ("mine", True)
    again = await program("sandbox", "start", "--name", "mine")
    assert (again.code, again.out) == (0, "mine\n")
    assert "mine runs already" in again.err
    other = await program("sandbox", "start", "--name", "mine", "--memory", "512", "--lifetime", "2h")
    assert other.code == 2
    assert "with another spec: lifetime_s, shape.memory_mib differ" in other.err
    assert "choose another name" in other.err
    ran = await program("run", "--name", "mine", "--", "echo")
    assert ran.code == 125
    assert "a sandbox of this name is running" in ran.err
    await program("sandbox", "stop", "mine")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "a/b"], "letters, digits"),
        (["--memory", "1"], "memory_mib"),
        (["--idle", "1s"], "idle_s"),
        (["--policy", "/nowhere/policy.yaml"], "policy file cannot be read"),
        (["--in", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
async def test_a_start_that_cannot_be_is_said_and_exits_2(program: Program, options: list[str], words: str) -> None:
    ended = await program("sandbox", "start", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


async def test_start_where_nothing_runs_says_so(alone: Program) -> None:
    ended = await alone("sandbox", "start", "--address", "127.0.0.1:1")
    assert ended.code == 3
    assert "does not answer" in ended.err


# logs


async def test_logs_of_a_task_that_is_not_there_say_so(program: Program, playing: Playing) -> None:
    await program("sandbox", "start", "--name", "few")
    none = await program("sandbox", "logs", "few")
    assert none.code == 2
    assert "no task has run in this sandbox yet" in none.err
    await program("sandbox", "exec", "few", "echo", "one")
    for options in ([], ["-f"]):
        ended = await program("sandbox", "logs", "few", "--task", "9", *options)
        assert (ended.code, ended.out) == (2, "")
        assert "there is no task 9; this sandbox has had 1" in ended.err
    await program("sandbox", "stop", "few")


async def test_logs_go_on_after_the_end_for_as_long_as_the_host_keeps_them(program: Program, playing: Playing) -> None:
    await program("sandbox", "start", "--name", "kept")
    await program("sandbox", "exec", "kept", "echo", "one")
    await program("sandbox", "exec", "kept", "echo", "two")
    await program("sandbox", "stop", "kept")
    assert (await program("sandbox", "logs", "kept")).out == "two\n"
    assert (await program("sandbox", "logs", "kept", "-f", "--task", "1")).out == "one\n"
    missing = await program("sandbox", "logs", "kept", "--task", "3")
    assert missing.code == 2
    assert "there is no task 3; this sandbox had 2" in missing.err
    playing.rig.link.keys.clear()
    playing.forgotten.update(sandbox for sandbox, _ in playing.rig.link.outputs)
    forgotten = await program("sandbox", "logs", "kept")
    assert forgotten.code == 2
    assert "keeps its output no more: it does for an hour" in forgotten.err


async def test_logs_of_a_sandbox_that_never_had_a_task_say_so(program: Program, playing: Playing) -> None:
    await program("sandbox", "start", "--name", "idle")
    await program("sandbox", "stop", "idle")
    ended = await program("sandbox", "logs", "idle")
    assert ended.code == 2
    assert "no task ran in this sandbox" in ended.err
