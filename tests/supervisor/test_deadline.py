"""The supervisor's own lease: it ends the sandbox when nobody renews it, by a clock that does not jump."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from paddock.supervisor import deadline as module
from paddock.supervisor.deadline import Deadline

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Timers:
    """Stands in for the event loop: what was asked for, and what still stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.standing: list[tuple[float, object]] = []
        loop = SimpleNamespace(call_later=self.call_later)
        monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: loop)

    def call_later(self, delay: float, call: object) -> SimpleNamespace:
        entry = (delay, call)
        self.standing.append(entry)
        return SimpleNamespace(cancel=lambda: self.standing.remove(entry))


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


def test_it_comes_a_little_behind_the_workflows_own_timer(timers: Timers) -> None:
    Deadline(NOW + timedelta(seconds=30), lambda: None, NOW.timestamp)
    [(delay, _)] = timers.standing
    assert delay == 30 + module.GRACE_S


def test_a_renewed_lease_moves_it_and_the_old_end_no_longer_counts(timers: Timers) -> None:
    deadline = Deadline(NOW + timedelta(seconds=30), lambda: None, NOW.timestamp)
    for seconds in (60, 10):
        deadline.move(NOW + timedelta(seconds=seconds))
        [(delay, _)] = timers.standing
        assert delay == seconds + module.GRACE_S
        assert deadline.lease_end == NOW + timedelta(seconds=seconds)


def test_a_lease_that_is_over_already_ends_after_the_grace(timers: Timers) -> None:
    Deadline(NOW - timedelta(days=1), lambda: None, NOW.timestamp)
    assert timers.standing[0][0] == module.GRACE_S


async def test_it_calls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.01)
    expired: list[str] = []
    over = asyncio.Event()

    def end() -> None:
        expired.append("expired")
        over.set()

    Deadline(NOW, end, NOW.timestamp)
    await asyncio.wait_for(over.wait(), 5)
    await asyncio.sleep(0.03)
    assert expired == ["expired"]
