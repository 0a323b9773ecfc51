"""A whole host that nobody hears from: its parent stopped, its keeper dead, its sandboxes alone; then it comes back."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.world import Observed, alive, every_receipt, processes_of, result, start, status, until

pytestmark = [pytest.mark.vm, pytest.mark.kill]


def test_a_lost_host_is_noticed_waited_for_and_believed_when_it_is_back(tmp_path: Path) -> None:
    observed = Observed(tmp_path)
    up = Up(tmp_path / "state").start()
    parent = int(up.info["pid"])  # type: ignore[call-overload]
    short = start(up, {"lifetime_s": 30})
    short_began = time.monotonic()
    long = start(up, {"lifetime_s": 3600})
    for one in (short, long):
        until(lambda one=one: status(up, one)["state"] == "ready", 40)  # type: ignore[misc]
    names = [str(status(up, one)["sandbox_id"]) for one in (short, long)]
    pids = [processes_of(up, name) for name in names]
    # The parent starts a dead keeper again: without it the host stays silent. The keeper's services die with it.
    keeper = up.pids["keeper"]
    os.kill(parent, signal.SIGSTOP)
    try:
        os.kill(keeper, signal.SIGKILL)
        silent = time.monotonic()
        until(lambda: status(up, long)["state"] == "ending", 60)
        assert time.monotonic() - silent < 30
        assert "has not answered" in str(status(up, long)["finding"])
        assert all(map(alive, pids[1])), "nobody on a lost host is told to end: its own deadline does that"
        until(lambda: not any(map(alive, pids[0])), 60)
        assert time.monotonic() - short_began < 30 + 15, "the supervisor's own deadline came late"
        report = result(up, short, 120)
        assert time.monotonic() - short_began > 30 + 60
        assert report["outcome"] == "host-lost"
        assert {one["gone"] for one in report["receipts"]} == {"implied_by_host"}  # type: ignore[attr-defined]
        assert status(up, long)["state"] == "ending"
    finally:
        os.kill(parent, signal.SIGCONT)
    report = result(up, long, 90)
    assert report["outcome"] == "host-lost"
    every_receipt(report)
    assert not any(map(alive, pids[1]))
    after = up.report("--", "echo", "again")
    assert (after[0], after[2]) == (0, "again")
    assert up.stop() == 0
    assert observed.left(*names) == []
