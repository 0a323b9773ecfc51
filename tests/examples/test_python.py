"""examples/python: a service's shared sandbox, and a job that runs once."""

import sys

import pytest

from tests.e2e.conftest import Up
from tests.examples.conftest import EVERYTHING, ROOT, Program, speaking

pytestmark = pytest.mark.vm


@pytest.fixture(scope="session")
def shared(address: str) -> Program:
    return speaking(address, sys.executable, ROOT / "examples" / "python" / "shared.py")


@pytest.fixture(scope="session")
def once(address: str) -> Program:
    return speaking(address, sys.executable, ROOT / "examples" / "python" / "once.py")


def test_two_calls_work_in_one_sandbox(shared: Program, up: Up) -> None:
    first = shared("py-shared", "sh", "-c", "echo kept > /work/note; exit 3")
    assert (first.returncode, first.stdout) == (3, "")
    assert first.stderr.startswith("started sandbox/py-shared on ")
    second = shared("py-shared", "cat", "/work/note")
    assert (second.returncode, second.stdout) == (0, "kept\n")
    assert second.stderr.startswith("found sandbox/py-shared on ")
    assert up.run("sandbox", "stop", "py-shared").returncode == 0


def test_a_name_that_is_taken_by_another_spec_says_in_what_it_differs(shared: Program, up: Up) -> None:
    assert up.run("sandbox", "start", "--name", "py-taken", "--memory", "512").returncode == 0
    done = shared("py-taken", "true")
    assert done.returncode == 1
    assert "a sandbox of this name is running" in done.stderr
    assert "it differs in idle_s, lifetime_s, shape.memory_mib" in done.stderr
    assert up.run("sandbox", "stop", "py-taken").returncode == 0


def test_a_job_runs_once_however_often_it_is_asked_for(once: Program) -> None:
    argv = ("order-7", "cat", "/proc/sys/kernel/random/uuid")
    first, second = once(*argv), once(*argv)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout) == 37
    assert second.stdout == first.stdout
    assert first.stderr.startswith("started sb-")
    assert second.stderr.startswith("found sb-")
    assert {line.split()[1] for line in second.stderr.splitlines() if line.startswith("receipt: ")} >= EVERYTHING


def test_a_refusal_is_said_in_words(once: Program) -> None:
    done = once("bad/name", "true")
    assert done.returncode == 1
    assert "1 to 100 letters, digits" in done.stderr
    assert "Traceback" not in done.stderr
