"""examples/go: a program with Temporal's Go SDK alone starts, follows and stops real sandboxes."""

import pytest

from tests.e2e.conftest import Up
from tests.examples.conftest import Program, all_gone, listed

pytestmark = pytest.mark.vm


def test_it_follows_a_task_to_its_outcome_and_receipts(go: Program) -> None:
    done = go("run", "go-run", "sh", "-c", "echo hello; sleep 2; exit 3")
    assert done.returncode == 0, done.stderr
    assert "started: sandbox/go-run\n" in done.stdout
    assert "state: running host: " in done.stdout
    assert "outcome: failed" in done.stdout
    assert "exit: 3, 6 bytes of output\n" in done.stdout
    assert all_gone(done)


def test_a_start_may_be_repeated_and_stop_ends_it(go: Program, up: Up) -> None:
    for _ in range(2):
        assert go("start", "go-session").returncode == 0
    first = listed(up, "go-session")["sandbox_id"]
    done = go("stop", "go-session")
    assert "outcome: stopped stopped by the Go example" in done.stdout
    assert all_gone(done)
    again = go("stop", "go-session")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert listed(up, "go-session")["sandbox_id"] == first


def test_a_sandbox_that_failed_says_why_and_has_its_report_in_the_failure(go: Program) -> None:
    done = go("run", "go-refused", "-policy", "no-such", "true")
    assert done.returncode == 1
    assert "outcome: refused" in done.stdout
    assert "paddock: refused: " in done.stderr
    assert "no-such" in done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "go-bad"], "argv: the program's name is empty"),
        (["run", "go-bad", "-policy", "No Name", "true"], "policy"),
        (["stop", "go-nobody"], "not found"),
        (["dance", "x"], "usage: "),
    ],
)
def test_what_cannot_be_is_said_in_words(go: Program, argv: list[str], words: str) -> None:
    done = go(*argv)
    assert done.returncode == 1
    assert words in done.stderr
    assert "panic" not in done.stderr


def test_no_server_is_said(go: Program) -> None:
    done = go("start", "x", at="127.0.0.1:1")
    assert done.returncode == 1
    assert "no Temporal at 127.0.0.1:1" in done.stderr
