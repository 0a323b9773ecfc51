"""examples/go and examples/typescript: by Temporal's own SDK alone they start, follow and stop real sandboxes."""

from dataclasses import dataclass

import pytest

from tests.e2e.conftest import Up
from tests.examples.conftest import Program, all_gone, listed

pytestmark = pytest.mark.vm


@dataclass(frozen=True, slots=True)
class Example:
    """One program; how it takes a policy, and what its language prints when it fails without words of its own."""

    run: Program
    short: str
    language: str
    flags: tuple[str, ...]
    trace: str

    def task(self, name: str, *argv: str, policy: str = "deny-all") -> list[str]:
        return ["run", self.named(name), *self.flags, policy, *argv]

    def named(self, name: str) -> str:
        return f"{self.short}-{name}"


@pytest.fixture(params=["go", "typescript"])
def example(request: pytest.FixtureRequest) -> Example:
    program = request.getfixturevalue(request.param)
    if request.param == "go":
        return Example(program, "go", "Go", ("-policy",), "panic")
    return Example(program, "ts", "TypeScript", (), "    at ")


def test_it_follows_a_task_to_its_outcome_and_receipts(example: Example) -> None:
    done = example.run(*example.task("run", "sh", "-c", "echo hello; sleep 2; exit 3"))
    assert done.returncode == 0, done.stderr
    assert f"started: sandbox/{example.named('run')}\n" in done.stdout
    assert "state: running host: " in done.stdout
    assert "outcome: failed" in done.stdout
    assert "exit: 3, 6 bytes of output\n" in done.stdout
    assert all_gone(done)


def test_a_start_may_be_repeated_and_stop_ends_it(example: Example, up: Up) -> None:
    name = example.named("session")
    for _ in range(2):
        assert example.run("start", name).returncode == 0
    first = listed(up, name)["sandbox_id"]
    done = example.run("stop", name)
    assert f"outcome: stopped stopped by the {example.language} example" in done.stdout
    assert all_gone(done)
    again = example.run("stop", name)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert listed(up, name)["sandbox_id"] == first


def test_a_sandbox_that_failed_says_why_and_has_its_report_in_the_failure(example: Example) -> None:
    done = example.run(*example.task("refused", "true", policy="no-such"))
    assert done.returncode == 1
    assert "outcome: refused" in done.stdout
    assert "paddock: refused: " in done.stderr
    assert "no-such" in done.stderr


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("no program", "argv: the program's name is empty"),
        ("no policy's name", "policy"),
        ("nobody", "not found"),
        ("no command", "usage: "),
    ],
)
def test_what_cannot_be_is_said_in_words(example: Example, mistake: str, words: str) -> None:
    argv = {
        "no program": example.task("bad"),
        "no policy's name": example.task("bad", "true", policy="No Name"),
        "nobody": ["stop", example.named("nobody")],
        "no command": ["dance", "x"],
    }[mistake]
    done = example.run(*argv)
    assert done.returncode == 1
    assert words in done.stderr
    assert example.trace not in done.stderr


def test_no_server_is_said(example: Example) -> None:
    done = example.run("start", "x", at="127.0.0.1:1")
    assert done.returncode == 1
    assert "no Temporal at 127.0.0.1:1" in done.stderr
