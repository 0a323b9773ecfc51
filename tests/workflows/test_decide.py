"""What a sweep may touch: each rule as a row of a table, and the same rules for whatever the hosts may say."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.fleet import Found, Hold, HostInventory, Left, OpenSandbox, StaleTemplate
from paddock.contracts.ground import GroundInventory
from paddock.contracts.ids import sandbox_id
from workflows.decide import Act, Decision, Rules, Sight, decide

RULES = Rules("local", grace_s=600)
GROUND = GroundInventory(environment="local", provider="joined", complete=True)
OLD = 3600.0


def found(name: str, **change: Any) -> Found:
    """A sandbox that its host holds, old enough, with nothing wrong but that nobody may own it."""
    made: dict[str, Any] = {
        "sandbox_id": sandbox_id(name, f"run-{name}"),
        "workflow_id": name,
        "run_id": f"run-{name}",
        "age_s": OLD,
        "holds": (Hold.RECORD, Hold.PROCESSES, Hold.SLOT),
    }
    return Found(**{**made, **change})


def owner(name: str, **change: Any) -> OpenSandbox:
    made: dict[str, Any] = {
        "sandbox_id": sandbox_id(name, f"run-{name}"),
        "workflow_id": name,
        "run_id": f"run-{name}",
        "host": "h1",
        "state": "ready",
        "age_s": OLD,
    }
    return OpenSandbox(**{**made, **change})


def host(*things: Found, name: str = "h1", **change: Any) -> HostInventory:
    return HostInventory(**{"environment": "local", "host": name, "found": things, **change})


def sight(*inventories: HostInventory, **change: Any) -> Sight:
    names = tuple(inventory.host for inventory in inventories)
    return replace(Sight(GROUND, names, inventories, ()), **change)


def twice(seen: Sight, rules: Rules = RULES) -> Decision:
    """The verdict of a second look that sees the same."""
    return decide(seen, decide(seen, frozenset(), rules).suspects, rules)


def acts(decision: Decision) -> list[tuple[Act, str]]:
    return [(verdict.act, verdict.why) for verdict in decision.verdicts]


STRAY = found("s", workflow_id="", run_id="", holds=(Hold.RUNDIR,))

TABLE: dict[str, tuple[Sight, list[tuple[Act, str]]]] = {
    "nothing": (sight(host()), []),
    "a sandbox with its workflow": (sight(host(found("a")), open=(owner("a"),)), []),
    "an orphan": (sight(host(found("a"))), [(Act.FREE, "its workflow is not open")]),
    "a stray directory": (sight(host(STRAY)), [(Act.FREE, "nothing that is open or recorded owns it")]),
    "an older run of a name that runs again": (
        sight(host(found("a"), found("b")), open=(owner("b"), owner("a", sandbox_id=sandbox_id("a", "run-2")))),
        [
            (Act.FREE, "its workflow is not open"),
            (Act.FIND, "its workflow is ready, but its host does not hold it"),
        ],
    ),
    "young": (sight(host(found("a", age_s=599))), [(Act.SPARE, "younger than 600 s")]),
    "of unknown age": (sight(host(found("a", age_s=None))), [(Act.SPARE, "which counts as young")]),
    "protected": (sight(host(found("a", protected=True))), [(Act.SPARE, "paddock-protect")]),
    "half-named": (sight(host(found("a", sandbox_id="sb-123"))), [(Act.SPARE, "not one that Paddock gives")]),
    "named like nothing of ours": (sight(host(found("a", sandbox_id="x"))), [(Act.SPARE, "not one that Paddock")]),
    "named for another workflow": (sight(host(found("a", workflow_id="b"))), [(Act.SPARE, "do not fit together")]),
    "perhaps another host's": (sight(host(found("a", foreign="another's"))), [(Act.SPARE, "another's")]),
    "of another environment": (
        sight(host(found("a"), environment="far")),
        [(Act.SPARE, "it belongs to environment 'far'")],
    ),
    "the workflows could not be listed": (sight(host(found("a")), open=None), [(Act.SPARE, "whole list of open")]),
    "the host's list is not complete": (
        sight(host(found("a"), missing=("the broker was silent",))),
        [(Act.SPARE, "the broker was silent")],
    ),
    "another host does not answer": (sight(host(found("a")), hosts=("h1", "h2")), [(Act.FREE, "is not open")]),
    "output of a sandbox that ended": (
        sight(host(left=(Left(sandbox_id=sandbox_id("a", "1"), age_s=OLD, output=True, objects=True),))),
        [(Act.FREE, "output and objects that nobody may ask for")],
    ),
    "output of one that runs": (
        sight(host(found("a"), left=(Left(sandbox_id=sandbox_id("a", "run-a"), age_s=OLD),)), open=(owner("a"),)),
        [],
    ),
    "young output": (
        sight(host(left=(Left(sandbox_id=sandbox_id("a", "1"), age_s=5, output=True),))),
        [(Act.SPARE, "younger")],
    ),
    "a template": (
        sight(host(templates=(StaleTemplate(name="k", age_s=OLD, bytes=1 << 20),))),
        [(Act.SPARE, "1 MiB in a cache that other hosts")],
    ),
    "a workflow whose host is gone": (
        sight(host(), open=(owner("a", host="gone"),)),
        [(Act.TELL, "no Host workflow is open for its host gone")],
    ),
    "a young one whose host is gone": (
        sight(host(), open=(owner("a", host="gone", age_s=1),)),
        [(Act.SPARE, "younger")],
    ),
    "a host that may be gone, as the provider is silent": (
        sight(host(), open=(owner("a", host="gone"),), ground=None),
        [(Act.SPARE, "no host is called lost")],
    ),
    "a host that may be gone, as the provider says half": (
        sight(host(), open=(owner("a", host="gone"),), ground=GROUND.model_copy(update={"complete": False})),
        [(Act.SPARE, "no host is called lost")],
    ),
    "the hosts could not be listed": (sight(open=(owner("a", host="gone"),), hosts=None), []),
    "one that is not placed yet": (sight(host(), open=(owner("a", host="", state="placing"),)), []),
    "one that stays ending": (sight(host(), open=(owner("a", state="ending"),)), [(Act.FIND, "it stays `ending`")]),
    "one that began to end": (sight(host(), open=(owner("a", state="ending", age_s=9),)), []),
    "one that its host does not hold": (sight(host(), open=(owner("a"),)), [(Act.FIND, "does not hold it")]),
    "one whose host is silent": (sight(hosts=("h1",), open=(owner("a"),)), []),
    "one whose host says half": (sight(host(missing=("half",)), open=(owner("a"),)), []),
}


@pytest.mark.parametrize("name", list(TABLE))
def test_the_table(name: str) -> None:
    seen, expected = TABLE[name]
    said = acts(twice(seen))
    assert [act for act, _ in said] == [act for act, _ in expected]
    for (_, why), (_, words) in zip(said, expected, strict=True):
        assert words in why


@pytest.mark.parametrize("name", list(TABLE))
def test_nothing_is_done_at_the_first_look(name: str) -> None:
    assert not decide(TABLE[name][0], frozenset(), RULES).of(Act.FREE, Act.TELL, Act.FIND)


def test_what_was_suspect_and_is_another_now_is_suspect_again() -> None:
    suspects = decide(sight(host(found("a"))), frozenset(), RULES).suspects
    again = decide(sight(host(found("b"))), suspects, RULES)
    elsewhere = decide(sight(host(found("a"), name="h2")), suspects, RULES)
    assert [verdict.act for verdict in (*again.verdicts, *elsewhere.verdicts)] == [Act.WAIT, Act.WAIT]


@pytest.mark.parametrize(
    ("orphans", "owned", "allow", "stopped"),
    [
        (3, 0, 0, False),
        (4, 0, 0, True),
        (4, 0, 4, False),
        (5, 0, 4, True),
        (4, 16, 0, False),
        (5, 19, 0, True),
        (20, 80, 0, False),
        (21, 900, 0, True),
        (21, 900, 21, False),
    ],
)
def test_a_storm_stops_everything_and_asks_a_person(orphans: int, owned: int, allow: int, stopped: bool) -> None:
    """Three are always few; a fifth of those known, and twenty at most, else a person says how many."""
    things = [found(f"o{n}") for n in range(orphans)] + [found(f"w{n}") for n in range(owned)]
    seen = sight(host(*things, STRAY), open=tuple(owner(f"w{n}") for n in range(owned)))
    decision = twice(seen, replace(RULES, allow=allow))
    assert bool(decision.storm) is stopped
    assert len(decision.of(Act.FREE)) == (0 if stopped else orphans + 1)
    assert decision.known == orphans + owned
    if stopped:
        assert f"paddock fleet cleanup --allow {orphans}" in decision.storm
        assert all("a person must decide" in verdict.why for verdict in decision.of(Act.SPARE))


def test_workflows_of_a_lost_host_count_as_a_storm_and_directories_do_not() -> None:
    many = tuple(owner(f"w{n}", host="gone") for n in range(4))
    assert twice(sight(host(), open=many)).storm
    strays = [found(f"s{n}", workflow_id="", run_id="", holds=(Hold.RUNDIR, Hold.SLOT)) for n in range(50)]
    assert len(twice(sight(host(*strays))).of(Act.FREE)) == 50


def test_what_is_not_complete_is_said() -> None:
    seen = Sight(None, ("h1", "h2"), (host(missing=("half",)),), None)
    said = " · ".join(decide(seen, frozenset(), RULES).incomplete)
    assert all(words in said for words in ("provider", "Sandbox workflows", "host h2 did not answer", "host h1: half"))
    assert "Host workflows" in decide(replace(seen, hosts=None), frozenset(), RULES).incomplete[1]


# Whatever the hosts say

names = st.sampled_from(["a", "b", "c", "d"])
ages = st.one_of(st.none(), st.floats(0, 10_000))
things = st.builds(
    lambda name, age, protected, holds, foreign, odd: found(
        name,
        age_s=age,
        protected=protected,
        holds=tuple(holds),
        foreign=foreign,
        **({"sandbox_id": odd} if odd else {}),
    ),
    names,
    ages,
    st.booleans(),
    st.sets(st.sampled_from(list(Hold))),
    st.sampled_from(["", "", "another's"]),
    st.sampled_from(["", "", "", "sb-1", "x"]),
)
hosts = st.builds(
    lambda name, many, missing, environment: host(*many, name=name, missing=missing, environment=environment),
    st.sampled_from(["h1", "h2"]),
    st.lists(things, max_size=6, unique_by=lambda thing: thing.sandbox_id),
    st.sampled_from([(), (), ("half",)]),
    st.sampled_from(["local", "local", "far"]),
)
workflows = st.builds(
    lambda name, where, state, age: owner(name, host=where, state=state, age_s=age),
    names,
    st.sampled_from(["", "h1", "h2", "gone"]),
    st.sampled_from(["", "ready", "running", "ending"]),
    ages,
)
sights = st.builds(
    Sight,
    st.sampled_from([None, GROUND, GROUND.model_copy(update={"complete": False})]),
    st.sampled_from([None, ("h1",), ("h1", "h2")]),
    st.lists(hosts, max_size=2, unique_by=lambda one: one.host).map(tuple),
    st.one_of(st.none(), st.lists(workflows, max_size=4, unique_by=lambda one: one.sandbox_id).map(tuple)),
)


@given(sights, sights, st.floats(1, 5000), st.integers(0, 10))
def test_only_what_is_surely_ours_old_unowned_and_seen_twice_is_freed(
    first: Sight, second: Sight, grace_s: float, allow: int
) -> None:
    rules = Rules("local", grace_s, allow)
    suspects = decide(first, frozenset(), rules).suspects
    decision = decide(second, suspects, rules)
    for verdict in decision.of(Act.FREE):
        thing = verdict.thing
        assert second.open is not None
        assert first.open is not None
        for seen in (first, second):
            assert thing.id not in {one.sandbox_id for one in seen.open or ()}
            [inventory] = [one for one in seen.inventories if one.host == thing.host]
            [what] = [one for one in inventory.found if one.sandbox_id == thing.id]
            assert inventory.environment == "local"
            assert not inventory.missing
            assert not what.foreign
            assert not what.protected
            assert what.age_s is not None
            assert what.age_s >= grace_s
            assert thing.id == sandbox_id(what.workflow_id, what.run_id)
    lost = decision.of(Act.FREE, Act.TELL)
    assert sum(one.thing.may_live for one in lost) <= max(3, min(20, int(decision.known * 0.2)), allow)
    assert not (decision.storm and lost)


@given(sights, sights)
def test_a_host_is_called_lost_only_by_whole_lists(first: Sight, second: Sight) -> None:
    suspects = decide(first, frozenset(), RULES).suspects
    for verdict in decide(second, suspects, RULES).of(Act.TELL):
        for seen in (first, second):
            assert seen.hosts is not None
            assert verdict.thing.host not in seen.hosts
            assert seen.ground is not None
            assert seen.ground.complete


@given(sights)
def test_the_same_sight_gives_the_same_verdict(seen: Sight) -> None:
    assert decide(seen, frozenset(), RULES) == decide(seen, frozenset(), RULES)
