"""When a pool grows and shrinks: each rule as a row of a table, and each finding in its words."""

from datetime import UTC, datetime, timedelta

import pytest

from paddock.contracts.ground import Choice
from paddock.contracts.pool import Avoided, Lately, PoolHost, PoolMemory, PoolSize, PoolSpec, PoolView
from workflows.sizing import Resize, capacity, remembered, resize, seen

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SMALL, LARGE = Choice(size="small", zone="zone-a"), Choice(size="large", zone="zone-a")
IDLE_S = 600


def spec(slots: int = 4, **size: int) -> PoolSpec:
    made = PoolSize(**{"maximum": 10, "idle_s": IDLE_S, **size})
    return PoolSpec(environment="e", choices=(SMALL, LARGE), slots=slots, size=made)


def host(
    name: str, state: str = "ready", used: int = 0, slots: int = 4, made: bool = True, age_s: float = 0
) -> PoolHost:
    return PoolHost(host=name, state=state, slots=slots, used=used, made=made, age_s=age_s)


def view(*hosts: PoolHost, waiting: int = 0) -> PoolView:
    return PoolView(hosts=hosts, waiting=waiting)


def ago(*minutes: float) -> tuple[datetime, ...]:
    return tuple(NOW - timedelta(minutes=one) for one in minutes)


def avoiding(*choices: Choice, minutes: float = 5) -> PoolMemory:
    until = NOW + timedelta(minutes=minutes)
    return PoolMemory(avoided=tuple(Avoided(choice=one, until=until, why="none left") for one in choices))


GROWS: dict[str, tuple[PoolSpec, PoolView, int]] = {
    "nobody waits and nothing is kept": (spec(), view(), 0),
    "one waits": (spec(), view(waiting=1), 1),
    "as many wait as one host has slots": (spec(), view(waiting=4), 1),
    "one more waits": (spec(), view(waiting=5), 2),
    "a free slot is there for the one that waits": (spec(), view(host("a", used=3), waiting=1), 0),
    "two wait for one free slot": (spec(), view(host("a", used=3), waiting=2), 1),
    "free slots are kept": (spec(free_slots=2), view(host("a", used=3)), 1),
    "free slots are there": (spec(free_slots=2), view(host("a", used=2)), 0),
    "free slots are kept beyond the demand": (spec(free_slots=4), view(waiting=4), 2),
    "the minimum, also when nobody needs it": (spec(minimum=3), view(host("a")), 2),
    "the minimum is there": (spec(minimum=1), view(host("a", "booting")), 0),
    "coming hosts count": (spec(), view(host("a", "creating"), host("b", "proving"), waiting=8), 0),
    "one that nobody made and that has not joined may never come": (
        spec(),
        view(host("a", "joining", made=False), waiting=1),
        1,
    ),
    "nor is it a host of the minimum": (spec(minimum=1), view(host("a", "joining", made=False)), 1),
    "one that somebody else orders comes": (spec(), view(host("a", "booting", made=False), waiting=1), 0),
    "one that the pool made joins": (spec(), view(host("a", "joining"), waiting=1), 0),
    "coming hosts are not enough": (spec(), view(host("a", "creating"), waiting=5), 1),
    "no more than the maximum": (spec(maximum=3), view(host("a", used=4), waiting=100), 2),
    "one that drains is still billed": (spec(maximum=2), view(host("a", "draining"), host("b", used=4), waiting=1), 0),
    "one that ends is still billed": (spec(maximum=1), view(host("a", "terminating"), waiting=1), 0),
    "a maximum of none": (spec(maximum=0), view(waiting=1), 0),
    "more hosts than a maximum that was lowered": (spec(maximum=1), view(host("a", used=4), host("b", used=4)), 0),
    "one that does not answer has no free slots": (spec(), view(host("a", "unreachable"), waiting=1), 1),
    "one that does not answer is replaced": (spec(minimum=1), view(host("a", "unreachable")), 1),
    "one that does not answer is billed": (spec(minimum=1, maximum=1), view(host("a", "unreachable")), 0),
    "one that leaves is replaced": (spec(minimum=1), view(host("a", "draining")), 1),
    "one that leaves has no free slots": (spec(), view(host("a", "draining"), waiting=1), 1),
    "one that joined by itself has slots": (spec(), view(host("a", made=False), waiting=4), 0),
    "a host with more on it than slots lends none to others": (
        spec(),
        view(host("a", used=9), host("b", used=3), waiting=2),
        1,
    ),
    "slots of a machine that are unlike the pool's": (spec(), view(host("a", slots=16), waiting=16), 0),
}


@pytest.mark.parametrize("case", GROWS, ids=lambda name: name.replace(" ", "_"))
def test_it_grows_by(case: str) -> None:
    pool, sight, start = GROWS[case]
    done = resize(pool, sight, PoolMemory(), NOW)
    assert done.start == start
    assert not done.drain
    assert done.choices == ((SMALL, LARGE) if start else ())


LONG, SHORT = ago(10), ago(9.9)
SHRINKS: dict[str, tuple[PoolSpec, PoolView, tuple[datetime, ...], tuple[str, ...]]] = {
    "one that nobody needs, after its idle time": (spec(), view(host("a")), LONG, ("a",)),
    "not a moment earlier": (spec(), view(host("a")), SHORT, ()),
    "not at the first look": (spec(), view(host("a")), (), ()),
    "the emptiest": (spec(), view(host("a", used=1), host("b"), host("c", used=2)), LONG, ("b",)),
    "one with sandboxes, when the rest has room for them": (
        spec(),
        view(host("a", used=2), host("b", used=1)),
        LONG,
        ("b",),
    ),
    "not when the rest has too little room": (spec(), view(host("a", used=3), host("b", used=2)), LONG, ()),
    "not what is kept free": (spec(free_slots=1), view(host("a", used=2), host("b", used=2)), LONG, ()),
    "not what somebody waits for": (spec(), view(host("a", used=2), host("b", used=2), waiting=1), LONG, ()),
    "not below the minimum": (spec(minimum=1), view(host("a")), LONG, ()),
    "down to the minimum": (spec(minimum=1), view(host("a"), host("b")), LONG, ("a",)),
    "a host that comes is no host of the minimum yet": (
        spec(minimum=1),
        view(host("a"), host("b", "booting")),
        LONG,
        (),
    ),
    "a host that comes has no room yet": (spec(), view(host("a", used=1), host("b", "booting")), LONG, ()),
    "one that does not answer is no host of the minimum": (
        spec(minimum=1),
        view(host("a"), host("b", "unreachable")),
        LONG,
        (),
    ),
    "one that leaves is no host of the minimum": (spec(minimum=1), view(host("a"), host("b", "draining")), LONG, ()),
    "never one that the pool did not make": (spec(), view(host("a", made=False), host("b", used=1)), LONG, ("b",)),
    "each that was superfluous for so long": (
        spec(),
        view(host("a"), host("b"), host("c")),
        ago(20, 15, 5),
        ("a", "b"),
    ),
    "a hundred at once": (
        spec(maximum=100),
        view(*(host(f"h{n:02}") for n in range(100))),
        ago(*(11 for _ in range(100))),
        tuple(f"h{n:02}" for n in range(100)),
    ),
}


@pytest.mark.parametrize("case", SHRINKS, ids=lambda name: name.replace(" ", "_"))
def test_it_drains(case: str) -> None:
    pool, sight, since, gone = SHRINKS[case]
    done = resize(pool, sight, PoolMemory(spare_since=since), NOW)
    assert (done.drain, done.start) == (gone, 0)
    assert not gone or gone[0] in done.why


DAY_S = 86_400
RENEW_S, LATE_S = DAY_S - 3600 - 600 - 120, DAY_S - 3600  # drained for an hour; booted and proved before that
AGED: dict[str, tuple[PoolSpec, PoolView, int, tuple[str, ...]]] = {
    "not one second earlier": (spec(minimum=1), view(host("a", age_s=RENEW_S - 1)), 0, ()),
    "an old host gets a successor first": (spec(minimum=1), view(host("a", age_s=RENEW_S)), 1, ()),
    "it stays while its successor comes": (
        spec(minimum=1),
        view(host("a", age_s=RENEW_S), host("b", "booting")),
        0,
        (),
    ),
    "it goes when its successor serves": (spec(minimum=1), view(host("a", age_s=RENEW_S), host("b")), 0, ("a",)),
    "a full one goes too": (spec(), view(host("a", used=4, age_s=RENEW_S)), 0, ("a",)),
    "not while somebody waits": (spec(), view(host("a", age_s=RENEW_S), waiting=1), 1, ()),
    "near its end it goes without a successor": (
        spec(minimum=1, maximum=1),
        view(host("a", used=4, age_s=LATE_S), waiting=9),
        0,
        ("a",),
    ),
    "never one that the pool did not make": (spec(), view(host("a", used=1, age_s=10 * DAY_S, made=False)), 0, ()),
    "one that drains is told once": (spec(), view(host("a", "draining", age_s=LATE_S)), 0, ()),
    "a drain that is longer than the life": (
        spec(minimum=1, drain_wait_s=30 * DAY_S),
        view(host("a", age_s=DAY_S / 2 - 1)),
        0,
        (),
    ),
    "a drain that is longer than the life, later": (
        spec(minimum=1, drain_wait_s=30 * DAY_S),
        view(host("a", age_s=DAY_S / 2)),
        1,
        (),
    ),
}


@pytest.mark.parametrize("case", AGED, ids=lambda name: name.replace(" ", "_"))
def test_a_host_is_replaced_before_its_cloud_ends_it(case: str) -> None:
    pool, sight, start, gone = AGED[case]
    done = resize(pool, sight, PoolMemory(), NOW)
    assert (done.start, done.drain) == (start, gone)
    assert not gone or done.why.startswith("near the end of its lifetime")


def test_an_old_host_has_no_longer_to_empty_than_its_cloud_leaves_it() -> None:
    """Its drain begins with a third of its life left at least; a superfluous one has all the time that was set."""
    long = spec(minimum=1, drain_wait_s=30 * DAY_S)
    assert resize(long, view(host("a", age_s=DAY_S - 1)), PoolMemory(), NOW).wait_s == DAY_S // 3
    assert resize(long, view(host("a", age_s=DAY_S / 2), host("b")), PoolMemory(), NOW).wait_s == DAY_S // 3
    assert resize(spec(), view(host("a", age_s=LATE_S)), PoolMemory(), NOW).wait_s == 3600
    spare = resize(spec(drain_wait_s=30 * DAY_S), view(host("a")), PoolMemory(spare_since=LONG), NOW)
    assert (spare.drain, spare.wait_s) == (("a",), 30 * DAY_S)


def test_a_look_orders_no_more_than_a_run_has_room_for() -> None:
    many = view(*(host(f"h{n:03}") for n in range(150)))
    first = resize(spec(maximum=500), many, PoolMemory(spare_since=ago(*(11 for _ in range(150)))), NOW)
    assert (len(first.drain), len(first.spare_since)) == (100, 50)
    assert first.why.endswith("h007 and 92 more")
    grown = resize(spec(maximum=500), view(waiting=2000), PoolMemory(), NOW)
    assert (grown.start, grown.finding) == (100, ""), "the rest at the next look, which is no finding"


def test_what_is_superfluous_is_timed_from_the_look_that_finds_it() -> None:
    first = resize(spec(), view(host("a"), host("b", used=4)), PoolMemory(), NOW)
    assert first.spare_since == (NOW,)
    later = NOW + timedelta(seconds=60)
    second = resize(spec(), view(host("a"), host("b")), PoolMemory(spare_since=first.spare_since), later)
    assert second.spare_since == (NOW, later), "the second has its own idle time"


def test_a_moment_of_demand_begins_the_idle_time_anew() -> None:
    memory = PoolMemory(spare_since=ago(9))
    needed = resize(spec(), view(host("a", used=4)), memory, NOW)
    assert needed.spare_since == ()
    growing = resize(spec(), view(host("a"), waiting=5), memory, NOW)
    assert (growing.start, growing.spare_since) == (1, ())


def test_at_the_maximum_those_who_wait_are_a_finding() -> None:
    done = resize(spec(maximum=2), view(host("a", used=4), host("b", "draining"), waiting=3), PoolMemory(), NOW)
    assert done.finding == "3 sandboxes wait, and the pool may not have more than 2 hosts"
    nobody = resize(spec(maximum=1, free_slots=2), view(host("a", used=4)), PoolMemory(), NOW)
    assert nobody == Resize(), "slots that are only kept free are no finding"


def test_a_maximum_that_is_reached_by_growing_is_a_finding_at_once() -> None:
    done = resize(spec(maximum=2), view(waiting=9), PoolMemory(), NOW)
    assert (done.start, "9 sandboxes wait" in done.finding) == (2, True)


def test_a_choice_that_failed_lately_is_left_alone_until_its_time() -> None:
    assert resize(spec(), view(waiting=1), avoiding(SMALL), NOW).choices == (LARGE,)
    assert resize(spec(), view(waiting=1), avoiding(SMALL, minutes=0), NOW).choices == (SMALL, LARGE)


def test_when_every_choice_failed_the_finding_says_why_and_when_the_next_is_tried() -> None:
    memory = avoiding(SMALL, LARGE)
    soon = memory.avoided[1].model_copy(update={"until": NOW + timedelta(minutes=1), "why": "ask for more (Limit)"})
    other = memory.avoided[0].model_copy(update={"choice": Choice(size="huge"), "until": NOW + timedelta(seconds=1)})
    done = resize(spec(), view(waiting=1), PoolMemory(avoided=(memory.avoided[0], soon, other)), NOW)
    assert done.start == 0
    assert done.finding == (
        "every choice failed lately (small zone-a: none left, large zone-a: ask for more (Limit)); "
        "the next is tried at 2026-01-02T03:05:05+00:00"
    ), "a choice that is no longer the pool's says nothing"


def lately(name: str, state: str, seconds_ago: float) -> PoolMemory:
    return PoolMemory(lately=(Lately(host=name, state=state, at=NOW - timedelta(seconds=seconds_ago)),))


def test_a_host_that_was_started_a_moment_ago_and_is_not_listed_is_not_started_twice() -> None:
    memory = lately("new", "recorded", 59)
    sight = seen(spec(), view(waiting=1), memory, NOW)
    assert [one.host for one in sight.hosts] == ["new"]
    assert resize(spec(), sight, memory, NOW).start == 0


def test_a_host_that_is_never_listed_is_forgotten() -> None:
    memory = lately("new", "recorded", 61)
    assert seen(spec(), view(waiting=1), memory, NOW) == view(waiting=1)
    assert remembered(view(), memory, NOW).lately == ()


def test_a_host_that_was_listed_and_is_gone_is_not_coming() -> None:
    memory = remembered(view(host("new", "booting")), lately("new", "recorded", 1), NOW)
    assert seen(spec(), view(waiting=1), memory, NOW).hosts == ()


def test_the_listed_state_of_a_host_is_newer_than_that_it_was_started() -> None:
    assert seen(spec(), view(host("a")), lately("a", "recorded", 1), NOW).hosts == (host("a"),)


def test_a_host_that_was_drained_a_moment_ago_is_not_drained_twice_nor_given_to_anybody() -> None:
    memory = lately("a", "draining", 59).model_copy(update={"spare_since": ago(11)})
    sight = seen(spec(), view(host("a")), memory, NOW)
    assert capacity(spec(), sight) == (0, 0)
    assert resize(spec(), sight, memory, NOW).drain == ()
    assert remembered(view(host("a")), memory, NOW).lately == memory.lately, "it stays while the index may lag"


def test_a_host_that_left_is_not_there_because_it_was_drained_lately() -> None:
    assert seen(spec(), view(), lately("a", "draining", 1), NOW).hosts == ()


def test_an_order_to_drain_that_was_lost_is_given_again() -> None:
    memory = lately("a", "draining", 61).model_copy(update={"spare_since": ago(11)})
    assert resize(spec(), seen(spec(), view(host("a")), memory, NOW), memory, NOW).drain == ("a",)
