"""The reference agent, run as it is meant to run: a plain process against a model server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.certs import TestCa
from tests.servers.model import Conversation, Fault, ModelServer, Reply, Script, ToolCall, in_turn

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agents" / "reference" / "agent.py"
DIALECTS = ("openai", "anthropic")


class Run:
    """One finished run of the agent."""

    def __init__(self, done: subprocess.CompletedProcess[str], server: ModelServer) -> None:
        self.code, self.output, self.errors, self.seen = done.returncode, done.stdout, done.stderr, server.seen

    def answers(self) -> list[str | None]:
        """What the tools answered, as the model saw it in the last request."""
        return [step.answer for step in self.seen[-1].conversation.steps]


def run(
    script: Script,
    dialect: str,
    cwd: Path,
    *,
    stdin: str = "",
    prompt: str = "Work.",
    key: str | None = None,
    **env: str,
) -> Run:
    with ModelServer(script, key=key) as server:
        base = f"http://{server.address}" + ("/v1" if dialect == "openai" else "")
        where = {"AGENT_DIALECT": dialect, "AGENT_BASE_URL": base, "AGENT_ASK_S": "5", **env}
        path = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-I", str(AGENT), prompt]
        done = subprocess.run(
            command, cwd=cwd, env=path | where, input=stdin, capture_output=True, text=True, timeout=60
        )
        return Run(done, server)


def bash(command: str) -> Reply:
    return Reply("", (ToolCall("bash", {"command": command}),))


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_command_is_run_and_its_exit_code_and_output_reach_the_model(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(bash("echo out; echo err >&2; pwd; exit 7"), Reply("The end: größer.")), dialect, tmp_path)
    assert done.answers() == [f"exit 7\nout\nerr\n{tmp_path}\n"]
    assert done.code == 0
    assert "The end: größer." in done.output


def test_a_file_is_written_and_read_byte_for_byte(dialect: str, tmp_path: Path) -> None:
    text = 'zwei „Zeilen"\n\tund \\ ein Rest ohne Ende ✓'
    write = Reply("", (ToolCall("write", {"path": "a/b.txt", "content": text}),))
    done = run(in_turn(write, Reply("", (ToolCall("read", {"path": "a/b.txt"}),))), dialect, tmp_path)
    assert (tmp_path / "a/b.txt").read_text() == text
    assert done.answers()[1] == text


def test_several_calls_of_one_turn_are_all_answered_in_their_order(dialect: str, tmp_path: Path) -> None:
    calls = tuple(ToolCall("bash", {"command": f"echo {number}"}) for number in range(3))
    done = run(in_turn(Reply("Three.", calls)), dialect, tmp_path)
    assert done.answers() == ["exit 0\n0\n", "exit 0\n1\n", "exit 0\n2\n"]


def test_a_question_is_answered_by_the_person_at_standard_input(dialect: str, tmp_path: Path) -> None:
    ask = Reply("", (ToolCall("ask", {"question": "Which colour?"}),))
    done = run(in_turn(ask), dialect, tmp_path, stdin="green\n")
    assert "Which colour?" in done.output
    assert done.answers() == ["green"]


def test_a_question_that_nobody_answers_does_not_hang(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(Reply("", (ToolCall("ask", {"question": "Anybody?"}),))), dialect, tmp_path)
    assert "Nobody answered" in (done.answers()[0] or "")
    assert done.code == 0


def test_long_output_is_cut_in_its_middle_and_the_cut_is_said(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(bash("seq 100000")), dialect, tmp_path, AGENT_OUTPUT_BYTES="2000")
    answer = done.answers()[0] or ""
    assert answer.startswith("exit 0\n1\n2\n")
    assert answer.endswith("99999\n100000\n")
    assert "[... 586895 bytes cut ...]" in answer
    assert len(answer) < 2100


def test_a_command_that_never_ends_is_killed_with_all_that_it_started(dialect: str, tmp_path: Path) -> None:
    command = "sh -c 'echo $$ > child; exec sleep 600' & echo begun; wait"
    done = run(in_turn(bash(command)), dialect, tmp_path, AGENT_COMMAND_S="1")
    assert done.answers() == ["killed after 1 s\nbegun\n"]
    assert gone(int((tmp_path / "child").read_text()))


def test_a_daemon_that_a_command_leaves_behind_ends_with_it(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(bash("sleep 600 & echo $! > child")), dialect, tmp_path)
    assert done.answers() == ["exit 0\n"]
    assert gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ToolCall("fly", {}), "there is no tool 'fly'"),
        (ToolCall("bash", {}), "exactly these strings: command"),
        (ToolCall("bash", {"command": "true", "speed": "high"}), "exactly these strings: command"),
        (ToolCall("read", {"path": "not-there"}), "error: [Errno 2]"),
        (ToolCall("write", {"path": "/proc/no", "content": ""}), "error: [Errno"),
    ],
)
def test_a_wrong_call_is_explained_to_the_model_and_work_goes_on(
    call: ToolCall, words: str, dialect: str, tmp_path: Path
) -> None:
    done = run(in_turn(Reply("", (call,)), bash("echo still here")), dialect, tmp_path)
    assert words in (done.answers()[0] or "")
    assert done.answers()[1] == "exit 0\nstill here\n"


def test_a_model_that_never_finishes_is_stopped_by_the_bound_on_steps(dialect: str, tmp_path: Path) -> None:
    done = run(lambda _: bash("true"), dialect, tmp_path, AGENT_MAX_STEPS="3")
    assert done.code == 1
    assert len(done.seen) == 3
    assert "AGENT_MAX_STEPS" in done.errors


def test_an_overloaded_model_is_asked_again(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(Fault(529, "overloaded"), Fault(breaks_off=True), Reply("At last.")), dialect, tmp_path)
    assert done.code == 0
    assert "At last." in done.output
    assert len(done.seen) == 3


def test_a_refusal_by_the_fence_is_told_at_once_and_not_tried_again(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(Fault(403, "no rule allows this host")), dialect, tmp_path)
    assert done.code == 3
    assert len(done.seen) == 1
    assert "no rule allows this host" in done.errors
    assert "Traceback" not in done.errors


def test_a_host_without_an_address_is_told_as_the_fence_refusing_it(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(), dialect, tmp_path, AGENT_BASE_URL="http://nowhere.invalid")
    assert done.code in (3, 4)  # 4: a resolver that answers "try again later" for it
    assert "nowhere.invalid" in done.errors


def test_a_request_that_the_model_rejects_ends_with_its_words(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(Fault(400, "no such model")), dialect, tmp_path)
    assert (done.code, len(done.seen)) == (4, 1)
    assert "no such model" in done.errors


@pytest.mark.parametrize(
    ("name", "value"),
    [("AGENT_DIALECT", "latin"), ("AGENT_BASE_URL", "ftp://x"), ("AGENT_MAX_STEPS", "0"), ("AGENT_COMMAND_S", "fast")],
)
def test_a_wrong_setting_names_itself_and_what_is_allowed(name: str, value: str, tmp_path: Path) -> None:
    done = run(in_turn(), "openai", tmp_path, **{name: value})
    assert done.code == 2
    assert name in done.errors
    assert value in done.errors
    assert done.seen == []


def test_no_credential_is_sent_unless_one_is_given(dialect: str, tmp_path: Path) -> None:
    without = run(in_turn(), dialect, tmp_path).seen[0]
    assert (without.authorization, without.api_key) == ("", "")
    given = run(in_turn(), dialect, tmp_path, AGENT_API_KEY="k-1").seen[0]
    assert (given.authorization or given.api_key).removeprefix("Bearer ") == "k-1"


def test_the_model_refuses_a_wrong_credential_and_the_agent_says_so(dialect: str, tmp_path: Path) -> None:
    done = run(in_turn(), dialect, tmp_path, key="right", AGENT_API_KEY="wrong")
    assert (done.code, done.seen) == (4, [])
    assert "401" in done.errors
    assert "wrong" not in done.output


def test_the_agent_speaks_tls_to_a_server_of_the_trusted_authority_only(dialect: str, tmp_path: Path) -> None:
    authority = TestCa(tmp_path)
    with ModelServer(in_turn(Reply("Over TLS.")), key="right", tls=authority.server_context("localhost")) as server:
        base = f"https://localhost:{server.port}" + ("/v1" if dialect == "openai" else "")
        env = {"AGENT_DIALECT": dialect, "AGENT_BASE_URL": base, "AGENT_API_KEY": "right", "PATH": os.environ["PATH"]}
        command = [sys.executable, str(AGENT), "Speak."]
        trusting = env | {"SSL_CERT_FILE": str(authority.path)}
        done = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "Over TLS.\n")
        assert len(server.seen) == 1
        subprocess.run(command, env=env, capture_output=True, timeout=60)
        assert len(server.seen) == 1


def test_the_agent_is_small_enough_to_be_read_in_one_sitting() -> None:
    assert 200 <= len(AGENT.read_text().splitlines()) <= 300
    before = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    imports = [line.split()[1] for line in AGENT.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert {name.split(".")[0] for name in imports} <= before


def gone(pid: int) -> bool:
    """True once no such process lives (a zombie is dead), waited for at most 5 s."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        os.sched_yield()
    return False


def test_the_prompt_can_come_by_standard_input(dialect: str, tmp_path: Path) -> None:
    prompts: list[str] = []

    def script(conversation: Conversation) -> Reply:
        prompts.append(conversation.prompt)
        return Reply("Read.")

    assert run(script, dialect, tmp_path, prompt="-", stdin="A long prompt.\nIn lines.").code == 0
    assert prompts == ["A long prompt.\nIn lines."]
