"""A host's wall clock that jumps by an hour, either way: what that does to a lease, a policy and a reservation."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activities.policy import VALID_BEYOND
from activities.sandbox import by_this_clock
from paddock.egress.exchange import Fence
from paddock.host import supervisors as keeper
from paddock.host.slots import RESERVED_S, Slots
from paddock.policy.compile import deny_all
from paddock.supervisor import deadline as supervisor
from paddock.supervisor.deadline import Deadline
from tests.host.test_supervisors import BOOT, SB, Host, asleep

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = timedelta(hours=1)
HOUR_S = 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])


class Clock:
    """A wall clock that can be set; true time goes by in `wait`."""

    def __init__(self) -> None:
        self.wall = self.true = NOW.timestamp()

    def __call__(self) -> float:
        return self.wall

    def now(self, zone: Any = None) -> datetime:
        return datetime.fromtimestamp(self.wall, zone)

    def jump(self, seconds: float) -> None:
        self.wall += seconds

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.true += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Timers:
    """Timers on the monotonic clock: how far ahead, in true time, each was set."""

    def __init__(self) -> None:
        self.set: list[float] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> SimpleNamespace:
        self.set.append(delay_s)
        return SimpleNamespace(cancel=lambda: None)


# The supervisor's own deadline


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(supervisor.asyncio, "get_running_loop", lambda: timers)
    return timers


@JUMPS
def test_a_jump_neither_ends_nor_prolongs_a_lease_that_is_set(timers: Timers, clock: Clock, jump_s: float) -> None:
    deadline = Deadline(NOW + LEASE, lambda: None, clock)
    clock.jump(jump_s)
    assert timers.set == [HOUR_S + supervisor.GRACE_S]
    assert deadline.lease_end == NOW + LEASE


@JUMPS
def test_a_lease_that_is_extended_after_a_jump_lasts_as_long_as_was_asked(
    timers: Timers, clock: Clock, jump_s: float
) -> None:
    deadline = Deadline(NOW + LEASE, lambda: None, clock)
    server = datetime.fromtimestamp(clock.true, UTC)
    clock.jump(jump_s)
    deadline.move(by_this_clock(NOW + LEASE, server, clock.now(UTC)))
    assert timers.set[-1] == HOUR_S + supervisor.GRACE_S


# The keeper's deadline


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Host]:
    monkeypatch.setattr(keeper, "fork", lambda name, body, keep, log, home: asleep(home))
    monkeypatch.setattr(keeper, "time", SimpleNamespace(time=clock, monotonic=lambda: clock.true))
    monkeypatch.setattr(keeper, "datetime", SimpleNamespace(now=clock.now))
    host = Host(tmp_path)
    yield host
    host.destroy()
    os.close(host.memory)
    signal.set_wakeup_fd(-1)


@pytest.fixture
def set_by_keeper(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far ahead, in true time, the keeper set its deadlines."""
    delays: list[float] = []
    later = host.loop.later

    def remember(delay_s: float, call: Callable[[], None]) -> None:
        if delay_s > 1:  # else it looks whether processes are gone
            delays.append(delay_s)
        later(delay_s, call)

    monkeypatch.setattr(host.loop, "later", remember)
    return delays


def boot(host: Host) -> None:
    host.all.boot(BOOT.model_copy(update={"lease_end": NOW + LEASE}), host.loaded, host.hand)


@JUMPS
def test_a_jump_leaves_the_keepers_deadline_alone(
    host: Host, clock: Clock, set_by_keeper: list[float], jump_s: float
) -> None:
    boot(host)
    clock.jump(jump_s)
    assert set_by_keeper == [HOUR_S + keeper.GRACE_S]


@JUMPS
def test_a_keeper_that_is_restarted_after_a_jump_keeps_the_deadline(
    host: Host, clock: Clock, set_by_keeper: list[float], jump_s: float
) -> None:
    boot(host)
    clock.jump(jump_s)
    host.all._on_lost = lambda kept, why: None  # the old keeper is dead: it hears of no death that follows
    host.next()
    host.all.adopt()
    assert set_by_keeper[-1] == pytest.approx(HOUR_S + keeper.GRACE_S, abs=60)


@JUMPS
def test_whatever_its_clock_says_the_keeper_lets_nothing_live_longer_than_its_cap(
    host: Host, clock: Clock, set_by_keeper: list[float], jump_s: float
) -> None:
    cap = host.config.caps.lifetime_s
    boot(host)
    clock.jump(jump_s)
    host.all.extend(SB, NOW + timedelta(seconds=10 * cap))
    assert max(set_by_keeper) <= cap + keeper.GRACE_S


# The policy's end


@pytest.fixture
def fence(clock: Clock) -> Fence:
    unused = cast(Any, None)
    fence = Fence(compiled=deny_all(), recorder=unused, secrets=unused, upstreams=unused, clock=clock, time=clock)
    fence.enforce(deny_all(), (NOW + LEASE + VALID_BEYOND).timestamp())
    return fence


@JUMPS
def test_a_jump_of_an_hour_makes_no_policy_stale_within_its_lease(fence: Fence, clock: Clock, jump_s: float) -> None:
    clock.jump(jump_s)
    clock.wait(LEASE.total_seconds())
    assert fence.compiled
    assert not fence.stale


def test_a_clock_that_is_set_back_revives_no_stale_policy(fence: Fence, clock: Clock) -> None:
    clock.wait((LEASE + VALID_BEYOND).total_seconds())
    assert fence.compiled
    assert fence.stale
    clock.jump(-HOUR_S)
    assert fence.compiled
    assert fence.stale


def test_a_clock_that_is_set_back_prolongs_a_policy_by_no_more_than_that(fence: Fence, clock: Clock) -> None:
    clock.jump(-HOUR_S)
    clock.wait((LEASE + VALID_BEYOND).total_seconds() + HOUR_S)
    assert fence.compiled
    assert fence.stale


# A reservation


@pytest.fixture
def slots(tmp_path: Path, clock: Clock) -> Slots:
    return Slots(tmp_path / "slots.json", 1, clock)


def test_a_reservation_that_lapses_by_a_jump_is_booted_all_the_same(slots: Slots, clock: Clock) -> None:
    assert slots.reserve(SB, "w")
    clock.jump(HOUR_S)
    assert slots.free() == 1
    assert slots.confirm(SB, "w", ())
    assert slots.free() == 0


@JUMPS
def test_a_jump_frees_no_slot_that_was_confirmed(slots: Slots, clock: Clock, jump_s: float) -> None:
    assert slots.confirm(SB, "w", ())
    clock.jump(jump_s)
    clock.wait(2 * HOUR_S)
    assert slots.free() == 0


def test_a_lost_reservation_lapses_in_its_time_although_the_clock_was_set_back(slots: Slots, clock: Clock) -> None:
    assert slots.reserve(SB, "w")
    clock.jump(-HOUR_S)
    clock.wait(RESERVED_S + 1)
    assert slots.free() == 1
