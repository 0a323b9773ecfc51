"""Edits that break replay, planted in a copy of workflows/: each fails with words, in the sandbox of production."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALL_THE_WAY, SESSION = "Sandbox/all-the-way", "Sandbox/session"

SWAPPED = "BEFORE_THE_TASK = (*BEFORE_THE_TASK[:-2], BEFORE_THE_TASK[-1], BEFORE_THE_TASK[-2])\n"
RENAMED = """
import dataclasses
_renamed = dataclasses.replace(COLLECT, do=dataclasses.replace(COLLECT.do, activity="fetch_outputs"))
COLLECT = _renamed
"""
NO_TIMER = """
async def _without_a_timer(self):
    await workflow.wait_condition(lambda: self.end is not None)
Sandbox._until_told = _without_a_timer
"""
ONE_MORE = """
_usual = Sandbox._collect
async def _twice(self):
    await _usual(self)
    await _usual(self)
Sandbox._collect = _twice
"""
OTHER_QUEUE = """
import dataclasses
_moved = dataclasses.replace(SEAL, undo=dataclasses.replace(SEAL.undo, where=Where.HOST))
BEFORE_THE_TASK = tuple(_moved if step is SEAL else step for step in BEFORE_THE_TASK)
SEAL = _moved
"""
PATCHED = """
_usual = Sandbox._collect
async def _twice(self):
    await _usual(self)
    if workflow.patched("collect-twice"):
        await _usual(self)
Sandbox._collect = _twice
"""


def replay(copy: Path, module: str, lines: str, *names: str) -> tuple[int, str]:
    """Replay with these lines at the end of a module of a copied workflows/."""
    shutil.copytree(ROOT / "workflows", copy / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "workflows" / f"{module}.py").open("a") as file:
        file.write(lines)
    done = subprocess.run(
        [sys.executable, "-m", "tests.replay.replaying", *names],
        cwd=copy,  # comes first in the search for modules
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("module", "lines", "name", "recorded", "now"),
    [
        ("steps", SWAPPED, ALL_THE_WAY, "activity boot_sandbox on host", "activity attach_policy on host"),
        ("steps", RENAMED, ALL_THE_WAY, "activity collect_outputs on host", "activity fetch_outputs on host"),
        ("sandbox", NO_TIMER, SESSION, "timer (lease)", "activity reserve_slot on slots"),
        ("sandbox", ONE_MORE, ALL_THE_WAY, "cancel timer (lease)", "activity collect_outputs on host"),
        # Temporal would replay this one: the activity's name is the same, and only its queue is another.
        ("steps", OTHER_QUEUE, ALL_THE_WAY, "activity seal_audit on host/ctl", "activity seal_audit on host"),
    ],
    ids=["steps-swapped", "activity-renamed", "timer-dropped", "step-repeated", "queue-changed"],
)
def test_an_edit_that_changes_commands_fails_with_words(
    tmp_path: Path, module: str, lines: str, name: str, recorded: str, now: str
) -> None:
    code, words = replay(tmp_path, module, lines, name)
    assert code == 1, "the planted edit was not seen"
    workflow, _, scenario = name.partition("/")
    assert workflow in words
    assert scenario in words
    assert f"recorded      {recorded}\n" in words
    assert f"the code now  {now}\n" in words
    assert ("workflow.patched" in words) is ("does not replay" in words)
    assert "make histories" in words


@pytest.mark.parametrize("lines", ["", PATCHED], ids=["no-edit", "behind-a-patch"])
def test_an_edit_that_keeps_the_old_way_replays(tmp_path: Path, lines: str) -> None:
    assert replay(tmp_path, "sandbox", lines, ALL_THE_WAY, SESSION) == (0, "2 histories replay\n")
