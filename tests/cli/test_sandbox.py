"""`paddock sandbox`: what runs is listed, shown, entered, read and ended."""

import json

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
    assert (await program("sandbox", "exec", "session", "echo")).code == 125


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
