"""What a new run commands beside what is committed, in words."""

import difflib
from typing import Final

from tests.replay.history import Words, unfolded

WHAT_TO_DO: Final = """\
When this is meant: check that recorded histories still replay (tests/replay/test_replay.py; if they do not, keep the
old way behind `workflow.patched`), then record again by `make histories`, and commit what that writes.
docs/replay.md says more."""


def differences(name: str, committed: Words, now: list[str]) -> str:
    """Which commands differ, as a diff with two lines around each; empty when none does."""
    was = unfolded(committed)
    if was == now:
        return ""
    workflow, _, scenario = name.partition("/")
    lines = difflib.unified_diff(was, now, lineterm="", n=2)
    shown = "\n".join(f"  {line[0]} {line[1:]}" for line in lines if not line.startswith(("---", "+++", "@@")))
    return (
        f"{workflow} gives other commands in scenario {scenario!r} than tests/replay/fingerprints.json has "
        f"(- committed, + now):\n{shown}\n{WHAT_TO_DO}"
    )
