"""The scenarios played again on a real server: a new run gives the commands that are committed."""

import logging

import pytest

from tests.replay import record
from tests.replay.history import commands, fingerprints, folded, unfolded
from tests.replay.live import differences
from tests.replay.stage import SCENARIOS, play_all
from tests.replay.world import world

assert record  # registers the scenarios


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "temporalio")  # failures are played on purpose; other tests read what is logged


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["quick", "slow"])
async def test_a_new_run_gives_the_committed_commands(slow: bool) -> None:
    chosen = [one for one in SCENARIOS.values() if one.live and one.slow is slow]
    async with world() as here:
        played = await play_all(here, chosen)
    committed = fingerprints()
    wrong = [differences(name, committed.get(name, []), commands(history)) for name, history in played.items()]
    assert not any(wrong), "\n\n".join(words for words in wrong if words)


async def test_a_changed_run_fails_with_words() -> None:
    name = "Sandbox/all-the-way"
    was = unfolded(fingerprints()[name])
    now = ["activity fetch_outputs on host" if "collect_outputs" in words else words for words in was]
    words = differences(name, folded(was), now)
    assert "Sandbox" in words
    assert "all-the-way" in words
    assert "- activity collect_outputs on host" in words
    assert "+ activity fetch_outputs on host" in words
    assert "make histories" in words
    assert not differences(name, folded(was), was)
