"""What a look at a machine's power means, case by case, and what no look may ever do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import HostState
from providers.onprem.claims import Claim, State, Wanted
from providers.onprem.life import Look, Pace, Power, Step, judge

PACE = Pace(settle_s=30, boot_s=300)
NOW = 1_000_000.0


def claim(state: State, **fields: Any) -> Claim:
    return Claim("m1", "rack1", 7, state, Wanted("t", "n", "s", "z", "", "", {}), NOW - 9000, **fields)


@pytest.mark.parametrize(
    ("known", "look", "step", "shown", "why"),
    [
        (claim(State.POWERING, asked_at=NOW - 1), Look(Power.OFF), Step.NONE, HostState.PENDING, ""),
        (claim(State.ON, asked_at=NOW - 1), Look(Power.CHANGING), Step.NONE, HostState.PENDING, ""),
        (claim(State.ON, asked_at=NOW - 301), Look(Power.OFF), Step.NONE, HostState.DELETING, "within 300 s"),
        (claim(State.ON, asked_at=NOW - 1), Look(Power.ON), Step.NONE, HostState.RUNNING, ""),
        (claim(State.ON, asked_at=NOW - 9, seen_on=True), Look(Power.OFF), Step.NONE, HostState.DELETING, "turned off"),
        (claim(State.ON, reset_at="a"), Look(Power.ON, "b"), Step.NONE, HostState.RUNNING, "reset at b"),
        (claim(State.ON, why="it was off"), Look(Power.ON), Step.NONE, HostState.RUNNING, "it was off"),
        (claim(State.ON, asked_at=NOW - 29, reset_at="a"), Look(Power.ON, "b"), Step.NONE, HostState.RUNNING, ""),
        (claim(State.ON, asked_at=NOW - 30, reset_at="a"), Look(Power.ON, "b"), Step.NONE, HostState.RUNNING, "at b"),
        (claim(State.ON, reset_at="a"), Look(Power.ON, "a"), Step.NONE, HostState.RUNNING, ""),
        (claim(State.ON, reset_at="a"), Look(Power.ON, ""), Step.NONE, HostState.RUNNING, ""),
        (claim(State.ENDING, seen_on=True), Look(Power.ON), Step.OFF, HostState.DELETING, ""),
        (claim(State.ENDING, off_at=NOW - 29), Look(Power.ON), Step.NONE, HostState.DELETING, ""),
        (claim(State.ENDING, off_at=NOW - 30), Look(Power.ON), Step.OFF, HostState.DELETING, ""),
        # It was asked to turn on a moment ago and was never seen on: off may yet become on.
        (claim(State.ENDING, asked_at=NOW - 29), Look(Power.OFF), Step.OFF, HostState.DELETING, ""),
        (claim(State.ENDING, asked_at=NOW - 30), Look(Power.OFF), Step.FREE, HostState.DELETING, ""),
        (claim(State.ENDING, asked_at=NOW - 1, seen_on=True), Look(Power.OFF), Step.FREE, HostState.DELETING, ""),
        (claim(State.WIPING), Look(Power.OFF), Step.WIPE, HostState.DELETING, "yet to begin"),
        (claim(State.WIPING, asked_at=NOW - 9), Look(Power.OFF), Step.NONE, HostState.DELETING, "being wiped"),
        (claim(State.WIPING, asked_at=NOW - 9, seen_on=True), Look(Power.ON), Step.NONE, HostState.DELETING, "wiped"),
        (claim(State.WIPING, asked_at=NOW - 9, seen_on=True), Look(Power.OFF), Step.FREE, HostState.DELETING, ""),
    ],
)
def test_each_case(known: Claim, look: Look, step: Step, shown: HostState, why: str) -> None:
    verdict = judge(known, look, NOW, PACE, wipes=False)
    assert (verdict.step, verdict.shown) == (step, shown)
    assert why in verdict.why
    assert bool(why) == bool(verdict.why)


times = st.none() | st.floats(NOW - 1000, NOW + 1000)
claims = st.builds(
    claim,
    st.sampled_from(State),
    asked_at=times,
    off_at=times,
    seen_on=st.booleans(),
    reset_at=st.sampled_from(["", "a", "b"]),
    why=st.just(""),
)
looks = st.builds(Look, st.sampled_from(Power), st.sampled_from(["", "a", "b"]))


@given(claims, looks, st.booleans())
def test_only_a_machine_that_is_off_and_at_its_end_becomes_free_and_wiped_first(
    known: Claim, look: Look, wipes: bool
) -> None:
    verdict = judge(known, look, NOW, PACE, wipes)
    if verdict.step in {Step.FREE, Step.WIPE}:
        assert look.power is Power.OFF
        assert known.state in {State.ENDING, State.WIPING}
    if verdict.step is Step.FREE and wipes:
        assert known.state is State.WIPING
        assert known.seen_on
    if verdict.step is Step.OFF:
        assert known.state is State.ENDING
    assert verdict.shown is not HostState.GONE
    if known.state in {State.ENDING, State.WIPING}:
        assert verdict.shown is HostState.DELETING
