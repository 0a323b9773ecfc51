"""The size of a pool by a slow count, whatever is there, and over whole days of random demand without flapping."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.pool import Lately, PoolHost, PoolMemory, PoolSpec, PoolView
from tests.workflows.test_sizing import IDLE_S, NOW, ago, host, spec, view
from workflows.sizing import COMING, LEAVING, capacity, remembered, resize, seen

STATES = (*sorted(COMING), *sorted(LEAVING), "ready", "unreachable", "gone")

HOSTS = st.lists(
    st.builds(
        host,
        st.uuids().map(lambda one: one.hex[:6]),
        st.sampled_from((*STATES, "ready", "ready")),
        st.integers(0, 5),
        made=st.booleans(),
    ),
    max_size=7,
    unique_by=lambda one: one.host,
)
SPECS = st.builds(
    lambda least, more, kept: spec(minimum=least, maximum=least + more, free_slots=kept),
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(0, 6),
)
MEMORIES = st.lists(st.integers(0, 20), max_size=7).map(
    lambda minutes: PoolMemory(spare_since=ago(*sorted(minutes, reverse=True)))
)


def enough(pool: PoolSpec, sight: PoolView, more: int) -> bool:
    """Whether with so many new hosts everybody has a slot, what is kept free too, and the minimum is there."""
    free, lasting = more * pool.slots, more
    for one in sight.hosts:
        comes = one.state in COMING - {"joining"} or (one.state == "joining" and one.made)
        lasting += one.state == "ready" or comes
        if one.state == "ready":
            free += max(0, one.slots - one.used)
        elif comes:
            free += pool.slots
    return free >= sight.waiting + pool.size.free_slots and lasting >= pool.size.minimum


def without(sight: PoolView, gone: Sequence[str]) -> PoolView:
    return sight.model_copy(update={"hosts": tuple(one for one in sight.hosts if one.host not in gone)})


def homeless(sight: PoolView, gone: Sequence[str]) -> int:
    return sum(one.used for one in sight.hosts if one.host in gone)


@given(SPECS, HOSTS, st.integers(0, 20))
def test_it_starts_the_least_that_is_enough_within_the_maximum(
    pool: PoolSpec, hosts: list[PoolHost], wait: int
) -> None:
    sight = view(*hosts, waiting=wait)
    least = next(more for more in range(100) if enough(pool, sight, more))
    assert resize(pool, sight, PoolMemory(), NOW).start == min(least, max(0, pool.size.maximum - len(hosts)))


@given(SPECS, HOSTS, st.integers(0, 20), MEMORIES)
def test_whatever_is_there_no_rule_is_broken(
    pool: PoolSpec, hosts: list[PoolHost], wait: int, memory: PoolMemory
) -> None:
    sight = view(*hosts, waiting=wait)
    done = resize(pool, sight, memory, NOW)
    assert not (done.start and done.drain), "never both at once"
    assert done.start == 0 or len(hosts) + done.start <= pool.size.maximum
    if not done.drain:
        return
    assert {one.host for one in hosts if one.state == "ready" and one.made} >= set(done.drain)
    assert len(set(done.drain)) == len(done.drain)
    rest = without(sight, done.drain)
    ready = [one for one in rest.hosts if one.state == "ready"]
    room = sum(max(0, one.slots - one.used) for one in ready)
    assert room >= wait + homeless(sight, done.drain) + pool.size.free_slots, "the rest has room for all"
    assert len(ready) >= pool.size.minimum
    assert resize(pool, rest, PoolMemory(), NOW).start == 0, "what was drained is not started again"
    assert all(NOW - one >= timedelta(seconds=IDLE_S) for one in memory.spare_since[: len(done.drain)])


@given(SPECS, HOSTS, st.integers(0, 20))
def test_looking_again_at_what_it_did_does_nothing_more(pool: PoolSpec, hosts: list[PoolHost], wait: int) -> None:
    """The index lags behind all of it: what the pool did is in its memory only."""
    sight, memory = view(*hosts, waiting=wait), PoolMemory(spare_since=ago(*(20 for _ in range(20))))
    first = resize(pool, sight, memory, NOW)
    did = [(f"new-{n}", "recorded") for n in range(first.start)] + [(one, "draining") for one in first.drain]
    memory = PoolMemory(
        spare_since=first.spare_since, lately=tuple(Lately(host=name, state=state, at=NOW) for name, state in did)
    )
    for seconds in (0, 15, 30, 45, 60):
        now = NOW + timedelta(seconds=seconds)
        memory = remembered(sight, memory, now)
        again = resize(pool, seen(pool, sight, memory, now), memory, now)
        assert (again.start, again.drain) == (0, ())
        memory = memory.model_copy(update={"spare_since": again.spare_since})


# -- whole days


@dataclass
class Box:
    """One sandbox: from its arrival to its end, and where it is."""

    ends_s: float
    at: str = ""


@dataclass
class Day:
    """An environment in simulated time: hosts take a while to come and to go, and the index shows all of it late."""

    pool: PoolSpec
    chance: random.Random
    lag_s: int
    boot_s: int = 90
    state: dict[str, tuple[str, float]] = field(default_factory=dict)  # by host: and since when
    boxes: list[Box] = field(default_factory=list)
    past: list[tuple[float, PoolView]] = field(default_factory=list)
    memory: PoolMemory = field(default_factory=PoolMemory)
    starts: list[float] = field(default_factory=list)
    drains: list[float] = field(default_factory=list)
    most: int = 0

    def step(self, now: float, arrivals: int) -> None:
        self.boxes = [box for box in self.boxes if box.ends_s > now]
        self.boxes += [Box(now + self.chance.expovariate(1 / 900)) for _ in range(arrivals)]
        used = Counter(box.at for box in self.boxes if box.at)
        for name, (state, since) in list(self.state.items()):
            if state == "booting" and now - since >= self.boot_s:
                self.state[name] = ("ready", now)
            if state == "draining" and not used[name] and now - since >= 30:
                del self.state[name]
        ready = [name for name, (state, _) in self.state.items() if state == "ready"]
        for box in self.boxes:
            if not box.at and (free := [name for name in ready if used[name] < self.pool.slots]):
                box.at = self.chance.choice(free)
                used[box.at] += 1
        self.most = max(self.most, len(self.state))
        hosts = [host(name, state, used[name]) for name, (state, _) in self.state.items()]
        self.past.append((now, view(*hosts, waiting=sum(not box.at for box in self.boxes))))
        if now % 15 == 0:
            self.look(now)

    def look(self, now: float) -> None:
        clock = NOW + timedelta(seconds=now)
        shown = next((sight for at, sight in reversed(self.past) if at <= now - self.lag_s), view())
        self.memory = remembered(shown, self.memory, clock)
        done = resize(self.pool, seen(self.pool, shown, self.memory, clock), self.memory, clock)
        new = [Lately(host=f"h{len(self.starts) + n}", state="recorded", at=clock) for n in range(done.start)]
        for one in new:
            self.state[one.host] = ("booting", now)
        self.starts += [now] * done.start
        for name in done.drain:
            new.append(Lately(host=name, state="draining", at=clock))
            self.drains.append(now)
            if name in self.state:
                self.state[name] = ("draining", now)
        self.memory = self.memory.model_copy(
            update={"spare_since": done.spare_since, "lately": (*self.memory.lately, *new)}
        )


DAY_S = 4 * 3600


def lived(seed: int, lag_s: int, quiet_from_s: int = DAY_S) -> Day:
    """A day of random demand in bursts and lulls; from `quiet_from_s` on nobody comes any more."""
    chance = random.Random(seed)
    least = chance.choice((0, 0, 1, 3))
    day = Day(spec(minimum=least, maximum=least + 8, free_slots=chance.choice((0, 0, 3))), chance, lag_s)
    rate = 0.0
    for now in range(0, DAY_S, 5):
        if now % 600 == 0:
            rate = chance.choice((0.0, 0.005, 0.02, 0.1))
        arrivals = sum(chance.random() < rate for _ in range(5)) if now < quiet_from_s else 0
        day.step(now, arrivals)
    return day


@pytest.mark.parametrize("lag_s", [0, 5, 45])
@pytest.mark.parametrize("seed", range(6))
def test_a_day_of_random_demand_has_no_flapping(seed: int, lag_s: int) -> None:
    day = lived(seed, lag_s)
    assert day.most <= day.pool.size.maximum, "an index that lags makes no host too many"
    assert len(day.starts) > 3
    assert day.drains
    for drained in day.drains:
        late = [at for at in day.starts if drained - IDLE_S + lag_s < at < drained]
        assert not late, f"a host was started at {late} and one drained at {drained}"
    shown = dict(day.past)
    for drained, hosts in Counter(day.drains).items():
        for look in range(int(drained) - IDLE_S, int(drained) + 1, 15):
            sight = shown.get(look - lag_s, view())
            spare = capacity(day.pool, sight)[0] - sight.waiting - day.pool.size.free_slots
            assert spare >= hosts * day.pool.slots, f"{hosts} went at {drained}, and were needed at {look}"
    bound = day.pool.size.maximum * (DAY_S // IDLE_S + 1)
    assert len(day.drains) <= bound
    assert len(day.starts) <= len(day.drains) + day.pool.size.maximum


@pytest.mark.parametrize("lag_s", [0, 45])
@pytest.mark.parametrize("seed", range(4))
def test_when_nobody_comes_any_more_it_is_down_to_its_minimum_in_one_idle_time(seed: int, lag_s: int) -> None:
    quiet = DAY_S // 2
    day = lived(seed, lag_s, quiet)
    size, last = day.pool.size, max(box for box in (*day.drains, 0))
    kept = max(size.minimum, -(-size.free_slots // day.pool.slots))
    empty = next(at for at, sight in day.past if at >= quiet and not any(one.used for one in sight.hosts))
    assert len(day.state) == kept
    assert last <= empty + IDLE_S + lag_s + 30, "all that is superfluous goes together, not one in each idle time"


@pytest.mark.parametrize("lag_s", [0, 5, 45])
def test_under_constant_demand_nothing_is_started_or_drained_again(lag_s: int) -> None:
    day = Day(spec(maximum=5), random.Random(1), lag_s)
    for now in range(0, DAY_S, 5):
        day.step(now, 0)
        if now == 0:
            day.boxes = [Box(float("inf")) for _ in range(9)]
    assert (len(day.starts), day.drains) == (3, [])
    assert {box.at for box in day.boxes} == {"h0", "h1", "h2"}
