"""Every committed history replays with the code as it is, and gives the committed commands; no server is needed."""

import gzip
import os
import socket
from pathlib import Path

import pytest

from tests.replay import record
from tests.replay.control import served
from tests.replay.history import HISTORIES, commands, fingerprints, folded, load, recorded, text, unfolded
from tests.replay.replaying import MEANT, STUCK, changed
from tests.replay.stage import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
SMALL_BYTES = 128 << 10
assert record  # registers the scenarios


def without_a_scenario(workflows: list[str], scenarios: list[str]) -> str:
    """Which workflows nothing is recorded of, and what to do."""
    missing = sorted(set(workflows) - {name.partition("/")[0] for name in scenarios})
    return "".join(
        f"workflow {name} is served by worker/control.py, and no scenario records it: "
        "add one to tests/replay/, import it in tests/replay/record.py, and run `make histories`\n"
        for name in missing
    )


def test_every_workflow_that_the_control_worker_serves_has_a_scenario() -> None:
    assert not without_a_scenario(served(), list(SCENARIOS))


def test_a_workflow_without_a_scenario_is_named_with_what_to_do() -> None:
    words = without_a_scenario([*served(), "Planted"], list(SCENARIOS))
    assert "Planted" in words
    assert "make histories" in words


def test_every_scenario_is_recorded_and_nothing_else_is() -> None:
    assert recorded() == sorted(SCENARIOS), "run `make histories`"
    assert sorted(fingerprints()) == recorded(), "run `make histories`"


@pytest.mark.parametrize("name", recorded())
async def test_a_recorded_history_replays_and_gives_its_commands(name: str) -> None:
    assert not (words := await changed(name)), words


@pytest.mark.parametrize("name", recorded())
def test_a_fingerprint_is_that_of_its_history(name: str) -> None:
    assert folded(commands(load(name))) == fingerprints()[name], "one of the two was edited by hand: `make histories`"


@pytest.mark.parametrize("said", [[], ["a"], ["a", "b"] * 7, ["x", *["a", "b", "b"] * 3, "y"], ["a"] * 100])
def test_folding_loses_nothing(said: list[str]) -> None:
    assert unfolded(folded(said)) == said
    assert len(folded(said)) <= 4


def test_histories_are_small_and_always_the_same_bytes() -> None:
    for name in recorded():
        path = HISTORIES / f"{name}.json.gz"
        assert path.stat().st_size <= SMALL_BYTES, f"{name}: bound what a history may grow to"
        assert path.read_bytes() == gzip.compress(text(name).encode(), mtime=0)


def test_no_history_names_the_machine_that_recorded_it() -> None:
    names = {str(ROOT), str(Path.home()), socket.gethostname(), f"{os.getpid()}@", "site-packages"}
    said = [(name, word) for name in recorded() for word in names if len(word) > 3 and word in text(name)]
    assert not said


def test_what_to_do_names_both_ways_out() -> None:
    assert "workflow.patched" in STUCK
    assert "make histories" in STUCK
    assert "make histories" in MEANT
    assert (ROOT / "docs" / "replay.md").is_file()
