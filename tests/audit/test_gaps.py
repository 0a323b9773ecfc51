"""Counts of dropped events: exact, and no way to fill the spool, whatever a supervisor says."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddock.audit.event import Owner
from paddock.audit.gaps import Gaps
from paddock.audit.ledger import Ledger
from paddock.audit.recorder import RecorderConfig
from paddock.audit.recovery import recover
from paddock.audit.verify import verify_sandbox
from tests.audit.rig import KEY, KEYS, NAME, Keeper, hear, lines_of, record

Keep = Callable[..., Keeper]
BIG = {"x": "y" * 60_000}


def gap(box: socket.socket, dropped: int, name: str) -> dict[str, Any]:
    box.send(json.dumps({"id": 1, "mode": "gap", "dropped": dropped, "action_id": name}).encode())
    return hear(box)


def gaps_of(keeper: Keeper, sandbox: str = "sb-1") -> list[int]:
    path = Path(keeper.seal(sandbox)["path"])
    assert verify_sandbox(path, KEYS).state == "whole"
    return [e["detail"]["dropped"] for e in lines_of(path / "chain.ndjson") if e["kind"] == "audit.gap"]


def fill(box: socket.socket) -> None:
    """Until not even a small event finds room."""
    number = 1
    for size in (60_000, 4_000, 1):
        while "seq" in record(box, number, detail={"x": "y" * size}):
            number += 1


def test_gaps_beyond_a_sandboxs_share_take_no_room_however_many_are_said(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20)
    box = keeper.adopt()
    fill(box)
    before = keeper.ask("stats")["spool_bytes"]
    for number in range(3000):
        assert "seq" in gap(box, 1, f"fresh-{number}")
    assert keeper.ask("stats")["spool_bytes"] == before
    held = list((keeper.directory / "gaps").iterdir())
    assert sum(path.stat().st_size for path in held) < 4096
    assert gaps_of(keeper) == [3000]


def test_gaps_within_the_share_count_against_it(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20, sandbox_bytes=16_384)
    box = keeper.adopt()
    for number in range(200):
        assert "seq" in gap(box, 1, f"fresh-{number}")
    assert keeper.ask("stats")["spool_bytes"] <= 16_384
    assert sum(gaps_of(keeper)) == 200


def test_gaps_of_one_group_are_one_line_and_the_rest_of_the_sum_is_in_the_last_one(tmp_path: Path) -> None:
    config = RecorderConfig(directory=tmp_path, host="h1", environment="local")
    ledger = Ledger(tmp_path, NAME, 5.0, KEY, recover(tmp_path, config.limits()), lambda: 1e9)
    ledger.adopt("sb-1", Owner())
    assert ledger.gap("sb-1", 1, "g0") == (2, False)
    assert [ledger.gap("sb-1", 2, f"g{number}")[1] for number in range(1, 60)] == [True] * 59
    ledger.commit()
    assert ledger.gap("sb-1", 7, "g60") == (3, False), "the next group may say one again"
    summary = ledger.seal("sb-1")
    assert summary.path is not None
    lines = lines_of(summary.path / "chain.ndjson")
    assert [e["detail"]["dropped"] for e in lines if e["kind"] == "audit.gap"] == [1, 7, 118]


def test_a_sandbox_that_says_gaps_does_not_take_the_reserve_that_others_are_sealed_with(keep: Keep) -> None:
    keeper = keep(max_bytes=1 << 20, segment_bytes=1 << 18, sandbox_bytes=1 << 20)
    greedy, other = keeper.adopt("sb-greedy"), keeper.adopt("sb-other")
    record(other, 1)
    fill(greedy)
    for number in range(5000):
        gap(greedy, 1, f"fresh-{number}")
    assert keeper.ask("stats")["spool_bytes"] <= 1 << 20
    assert keeper.seal("sb-other")["events"] == 3


def test_a_held_count_outlives_its_recorder_and_a_repetition_is_not_added(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20)
    box = keeper.adopt()
    fill(box)
    for name, dropped in (("g1", 3), ("g2", 4)):
        assert "seq" in gap(box, dropped, name)
    keeper.kill()
    keeper.start()
    box = keeper.adopt()
    assert "seq" in gap(box, 4, "g2")
    assert "seq" in gap(box, 5, "g3")
    assert gaps_of(keeper) == [12]
    assert list((keeper.directory / "gaps").iterdir()) == []


def test_a_sandbox_that_fills_its_share_leaves_the_strict_events_of_fifteen_others_alone(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20, segment_bytes=1 << 18)
    for index in range(15):
        greedy = keeper.adopt(f"sb-greedy-{index}")
        fill(greedy)
        for number in range(20):
            gap(greedy, 1, f"fresh-{number}")
    modest = keeper.adopt("sb-modest")
    for number in range(3):
        assert "seq" in record(modest, number, detail=BIG)


def test_the_share_is_a_sixteenth_unless_it_is_said(tmp_path: Path) -> None:
    config = RecorderConfig(directory=tmp_path, host="h1", environment="local", max_bytes=1 << 30)
    assert config.limits().sandbox_bytes == 1 << 26
    assert config.model_copy(update={"sandbox_bytes": 5}).limits().sandbox_bytes == 5


def test_a_count_that_no_one_can_read_is_none_and_no_crash(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "gaps")
    gaps.add("sb-1", 2, "a")
    (tmp_path / "gaps" / "sb-1").write_text("{")
    assert gaps.held("sb-1") is None
    gaps.add("sb-1", 1 << 53, "b")
    gaps.add("sb-1", 1 << 53, "c")
    held = gaps.held("sb-1")
    assert held is not None
    assert held.dropped == 1 << 53
