"""What a sweep may end at a provider: each rule as a row of a table, and the same rules whatever a cloud may say."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.fleet import Kind, OpenSandbox
from paddock.contracts.ground import GroundInventory, GroundItem, HostState, Part
from paddock.contracts.ids import sandbox_id
from workflows.decide import Act, Decision, Rules, Sight, decide

RULES = Rules("far", grace_s=600)
OLD = 3600.0


def item(number: int = 1, **change: Any) -> GroundItem:
    """A machine of ours, old enough, with nothing wrong but that no host may own it."""
    made: dict[str, Any] = {
        "id": f"i-{number}",
        "kind": "host",
        "name": f"ph-{number}",
        "state": HostState.RUNNING,
        "zone": "zone-a",
        "controller": "ours",
        "host": f"h-{number}",
        "attempt": 1,
        "age_s": OLD,
    }
    return GroundItem(**{**made, **change})


def part(number: int = 1, **change: Any) -> Part:
    return Part(**{"id": f"vol-{number}", "kind": "disk", "zone": "zone-a", **change})


def disk(number: int = 1, **change: Any) -> GroundItem:
    return item(number, **{"id": f"vol-{number}", "kind": "disk", **change})


def cloud(*items: GroundItem, **change: Any) -> GroundInventory:
    made: dict[str, Any] = {"environment": "far", "provider": "aws", "controller": "ours", "complete": True}
    return GroundInventory(**{**made, "items": items, **change})


def sight(*items: GroundItem, **change: Any) -> Sight:
    return replace(Sight(cloud(*items), (), (), ()), **change)


def twice(seen: Sight, rules: Rules = RULES) -> Decision:
    """The verdict of a second look that sees the same."""
    return decide(seen, decide(seen, frozenset(), rules).suspects, rules)


def hosts(**states: str) -> dict[str, Any]:
    """Open hosts with their states, by names with underscores."""
    named = {name.replace("_", "-"): state for name, state in states.items()}
    return {"hosts": tuple(named), "states": named}


FREE = [(Act.FREE, "no Host workflow is open for its host h-1")]
TABLE: dict[str, tuple[Sight, list[tuple[Act, str]]]] = {
    "an orphan": (sight(item()), FREE),
    "one with its host": (sight(item(), **hosts(h_1="ready")), []),
    "one whose host is being made": (sight(item(), **hosts(h_1="creating")), []),
    "an earlier attempt's, which its host ends": (
        sight(item(), item(id="i-2", attempt=2), **hosts(h_1="ready")),
        [],
    ),
    "one whose host is another environment's": (sight(item(), elsewhere=frozenset({"h-1"})), []),
    "a disk that nothing holds": (sight(disk()), FREE),
    "an interface that nothing holds": (sight(disk(kind="nic")), FREE),
    "an address that nothing holds": (sight(disk(kind="address")), FREE),
    "a machine with its disk": (sight(item(parts=(part(),))), [(Act.FREE, "with it go 1 disk")]),
    "young": (sight(item(age_s=599)), [(Act.SPARE, "younger than 600 s")]),
    "made in the future": (sight(item(age_s=-5)), [(Act.SPARE, "younger than 600 s")]),
    "of unknown age": (sight(item(age_s=None)), [(Act.SPARE, "which counts as young")]),
    "protected": (sight(item(protected=True)), [(Act.SPARE, "paddock-protect")]),
    "with a protected disk": (sight(item(parts=(part(protected=True),))), [(Act.SPARE, "of what goes with it")]),
    "with another's protected disk": (
        sight(item(), disk(2, attached_to="i-1", protected=True)),
        [(Act.SPARE, "of what goes with it"), (Act.SPARE, "paddock-protect")],
    ),
    "a disk that something else holds": (sight(disk(attached_to="i-9")), [(Act.SPARE, "it is held by i-9")]),
    "on its way out": (sight(item(state=HostState.DELETING)), [(Act.SPARE, "on its way")]),
    "a failed creation": (
        sight(item(state=HostState.DELETING, failed=True)),
        [(Act.FREE, "it failed, or stands still, and is billed")],
    ),
    "gone": (sight(item(state=HostState.GONE)), []),
    "another controller's": (sight(item(controller="theirs")), [(Act.SPARE, "this controller's")]),
    "nobody's": (sight(item(controller="")), [(Act.SPARE, "this controller's")]),
    "nobody's, at a worker that does not say whose it is": (
        sight(item(controller=""), ground=cloud(item(controller=""), controller="")),
        [(Act.SPARE, "this controller's")],
    ),
    "without a host": (sight(item(host="")), [(Act.SPARE, "only half")]),
    "of a host that no host is called": (sight(item(host="Ada's")), [(Act.SPARE, "only half")]),
    "without an attempt": (sight(item(attempt=0)), [(Act.SPARE, "only half")]),
    "of a kind that we do not make": (sight(item(kind="bucket")), [(Act.SPARE, "does not make")]),
    "another environment's list": (
        sight(ground=cloud(item(), environment="near")),
        [(Act.SPARE, "belongs to environment 'near'")],
    ),
    "the hosts could not be listed": (sight(item(), hosts=None), [(Act.SPARE, "whole list of open Host")]),
    "an orphan in a list that is not complete": (sight(ground=cloud(item(), complete=False)), FREE),
    "the provider did not answer": (sight(ground=None, **hosts(h_1="ready")), []),
    "a host without a machine": (
        sight(**hosts(h_1="ready")),
        [(Act.FIND, "its workflow is ready, but no machine of it")],
    ),
    "a lost host without a machine": (sight(**hosts(h_1="unreachable")), [(Act.FIND, "is unreachable, but no")]),
    "a host with a disk only": (sight(disk(), **hosts(h_1="ready")), [(Act.FIND, "no machine of it")]),
    "a host whose machine is ending": (sight(item(state=HostState.DELETING), **hosts(h_1="ready")), []),
    "a host that has none yet": (sight(**hosts(h_1="creating", h_2="booting", h_3="", h_4="draining")), []),
    "a host that an incomplete list lacks": (sight(ground=cloud(complete=False), **hosts(h_1="ready")), []),
    "a host that joined, where none are made": (sight(ground=cloud(provider="joined"), **hosts(h_1="ready")), []),
}


@pytest.mark.parametrize("name", list(TABLE))
def test_the_table(name: str) -> None:
    seen, expected = TABLE[name]
    said = [(verdict.act, verdict.why) for verdict in twice(seen).verdicts]
    assert [act for act, _ in said] == [act for act, _ in expected]
    for (_, why), (_, words) in zip(said, expected, strict=True):
        assert words in why


@pytest.mark.parametrize("name", list(TABLE))
def test_nothing_is_done_at_the_first_look(name: str) -> None:
    assert not decide(TABLE[name][0], frozenset(), RULES).of(Act.FREE, Act.TELL, Act.FIND)


@pytest.mark.parametrize("change", [{"id": "i-9"}, {"zone": "zone-b"}, {"host": "h-9"}, {"kind": "disk"}])
def test_what_was_suspect_and_is_another_now_is_suspect_again(change: dict[str, Any]) -> None:
    suspects = decide(sight(item()), frozenset(), RULES).suspects
    [verdict] = decide(sight(item(**change)), suspects, RULES).verdicts
    assert verdict.act is Act.WAIT


def test_a_host_whose_machine_is_a_stranger_by_its_tags_has_none() -> None:
    seen = sight(item(controller="theirs"), **hosts(h_1="ready"))
    assert [one.thing.kind for one in twice(seen).of(Act.FIND)] == [Kind.HOST]


@pytest.mark.parametrize(
    ("orphans", "owned", "allow", "stopped"),
    [
        (1, 0, 0, False),
        (2, 0, 0, True),
        (2, 0, 2, False),
        (3, 0, 2, True),
        (2, 7, 0, True),
        (2, 8, 0, False),
        (20, 80, 0, False),
        (20, 79, 0, True),
        (21, 900, 0, True),
        (21, 900, 21, False),
    ],
)
def test_a_storm_over_machines_stops_everything_and_asks_a_person(
    orphans: int, owned: int, allow: int, stopped: bool
) -> None:
    """One is always few; a fifth of those known, and twenty at most, else a person says how many."""
    things = [item(n, parts=(part(n),)) for n in range(orphans + owned)]
    named = {f"h_{n}": "ready" for n in range(orphans, orphans + owned)}
    strangers = [item(n, controller="theirs") for n in range(1000, 1100)]
    seen = sight(*things, *strangers, disk(5000), **hosts(**named))
    decision = twice(seen, replace(RULES, allow=allow))
    assert bool(decision.storm) is stopped
    assert len(decision.of(Act.FREE)) == (0 if stopped else orphans + 1)
    assert (decision.machines, decision.strange) == (orphans + owned, 100)
    if stopped:
        assert f"{orphans} of {orphans + owned} known machines" in decision.storm
        assert f"paddock fleet cleanup --allow {orphans} --environment far`" in decision.storm


def test_machines_of_other_environments_make_no_storm_smaller() -> None:
    things = [item(n) for n in range(20)]
    seen = sight(*things, elsewhere=frozenset(f"h-{n}" for n in range(2, 20)))
    assert "2 of 2 known machines" in twice(seen).storm


def test_a_storm_of_sandboxes_ends_no_machine_either() -> None:
    lost = tuple(
        OpenSandbox(sandbox_id=sandbox_id("w", str(n)), workflow_id="w", run_id=str(n), host="gone", age_s=OLD)
        for n in range(4)
    )
    decision = twice(sight(item(), open=lost))
    assert "sandboxes" in decision.storm
    assert "machines" not in decision.storm
    assert not decision.of(Act.FREE, Act.TELL)


def test_what_the_provider_did_not_list_is_said() -> None:
    seen = sight(ground=cloud(complete=False, missing=("machines of region-b: auth",)), **hosts(h_1="booting"))
    assert decide(seen, frozenset(), RULES).incomplete == (
        "the list of the aws provider is not complete: machines of region-b: auth",
    )


# Whatever the cloud says

names = st.sampled_from(["h-1", "h-2", "h-3", "", "No host"])
ages = st.one_of(st.none(), st.floats(-1000, 10_000))
parts = st.lists(st.builds(lambda n, p: part(n, protected=p), st.integers(0, 3), st.booleans()), max_size=2)
items = st.builds(
    lambda n, host, kind, state, age, controller, attempt, protected, failed, attached, more: item(
        n,
        host=host,
        kind=kind,
        state=state,
        age_s=age,
        controller=controller,
        attempt=attempt,
        protected=protected,
        failed=failed,
        attached_to=attached,
        parts=tuple(more),
    ),
    st.integers(0, 6),
    names,
    st.sampled_from(["host", "host", "disk", "nic", "address", "bucket"]),
    st.sampled_from(list(HostState)),
    ages,
    st.sampled_from(["ours", "ours", "ours", "theirs", ""]),
    st.sampled_from([1, 1, 2, 0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "", "i-1"]),
    parts,
)
clouds = st.builds(
    lambda many, complete, environment, provider: cloud(
        *many, complete=complete, environment=environment, provider=provider
    ),
    st.lists(items, max_size=8, unique_by=lambda one: (one.kind, one.id)),
    st.booleans(),
    st.sampled_from(["far", "far", "far", "near"]),
    st.sampled_from(["aws", "aws", "joined"]),
)
open_hosts = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["h-1", "h-2"]), st.sampled_from(["ready", "unreachable", "booting", ""])),
)
sights = st.builds(
    lambda seen, listed, others: Sight(
        seen, None if listed is None else tuple(listed), (), (), listed or {}, frozenset(others)
    ),
    st.one_of(st.none(), clouds, clouds, clouds),
    open_hosts,
    st.sets(st.sampled_from(["h-3"])),
)


@given(sights, sights, st.floats(1, 5000), st.integers(0, 5))
def test_only_what_is_surely_ours_old_unowned_and_seen_twice_is_ended(
    first: Sight, second: Sight, grace_s: float, allow: int
) -> None:
    rules = Rules("far", grace_s, allow)
    decision = decide(second, decide(first, frozenset(), rules).suspects, rules)
    freed = decision.of(Act.FREE)
    for verdict in freed:
        assert verdict.thing.item
        for seen in (first, second):
            assert seen.ground
            assert seen.ground.environment == "far"
            assert seen.hosts is not None
            [what] = [
                one for one in seen.ground.items if (one.kind, one.id) == (verdict.thing.item.kind, verdict.thing.id)
            ]
            assert what.host not in {*seen.hosts, *seen.elsewhere}
            assert (what.controller, what.host[:2]) == ("ours", "h-")
            assert what.attempt >= 1
            assert what.kind != "bucket"
            assert what.age_s is not None
            assert what.age_s >= grace_s
            assert not what.protected
            assert not any(one.protected for one in what.parts)
            assert what.state is not HostState.GONE
            assert what.state is not HostState.DELETING or what.failed
            assert not what.attached_to
    machines = sum(one.thing.kind is Kind.MACHINE for one in freed)
    assert machines <= max(1, min(20, int(decision.machines * 0.2)), allow)
    assert not (decision.storm and freed)


@given(sights, sights)
def test_a_machine_is_missed_only_by_whole_lists_of_those_who_make_machines(first: Sight, second: Sight) -> None:
    suspects = decide(first, frozenset(), RULES).suspects
    for verdict in decide(second, suspects, RULES).of(Act.FIND):
        assert verdict.thing.kind is Kind.HOST
        for seen in (first, second):
            assert seen.ground
            assert seen.ground.complete
            assert seen.ground.provider != "joined"
            assert seen.states[verdict.thing.host] in {"ready", "unreachable"}
