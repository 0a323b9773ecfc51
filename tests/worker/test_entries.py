"""Entry points of the workers: wrong use is said with words, and a missing server is no traceback in a loop."""

import subprocess
import sys

import pytest


def run(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["worker.control", "worker.environment"])
def test_without_arguments_it_says_which_are_missing(module: str) -> None:
    done = run(module)
    assert done.returncode == 2
    assert "--address" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["worker.control", "worker.environment"])
def test_help_says_what_it_is(module: str) -> None:
    done = run(module, "--help")
    assert done.returncode == 0
    assert "paddock worker" in done.stdout


@pytest.mark.parametrize("module", ["worker.control", "worker.environment"])
def test_tied_to_a_parent_that_is_gone_it_ends_at_once(module: str, tmp_path: object) -> None:
    words = {"worker.control": ["--policies", "p", "--policy-key", "k"], "worker.environment": ["--environment", "e"]}
    assert run(module, "--address", "127.0.0.1:1", "--parent", "1", *words[module]).returncode == 1
