"""A number is a plan: the same one each time, within its bounds, and over few numbers everything is struck."""

from collections import Counter

import pytest

from tests.faults.__main__ import SEED
from tests.faults.plan import LOSS_SHOWS_S, MOST_STOPPED_S, OF_ONE_SANDBOX, VICTIMS, Kind, Plan, plan

MANY = [plan(number) for number in range(3000)]
IN_CI = [plan(SEED + index) for index in range(40)]


def test_a_number_gives_the_same_plan_each_time_and_another_number_another_one() -> None:
    assert [plan(number) for number in range(200)] == MANY[:200]
    assert len({(one.works, one.faults) for one in MANY}) > 2900


def test_every_plan_is_within_bounds() -> None:
    for one in MANY:
        assert 1 <= len(one.works) <= 4
        assert 1 <= len(one.faults) <= 4
        assert all(0 <= fault.sandbox < len(one.works) for fault in one.faults)
        assert all(0 <= fault.stop_s <= 4.0 for fault in one.faults)
        assert sum(fault.stop_s for fault in one.faults) <= MOST_STOPPED_S + 0.05
        assert max(fault.at_s for fault in one.faults) < 34


@pytest.mark.parametrize("plans", [IN_CI, MANY], ids=["ci", "many"])
def test_each_victim_is_killed_and_the_lists_are_mixed(plans: list[Plan]) -> None:
    killed = Counter(fault.victim for one in plans for fault in one.faults if not fault.stop_s)
    assert set(killed) == set(VICTIMS)
    kinds = Counter(work.kind for one in plans for work in one.works)
    assert set(kinds) == set(Kind)
    assert {len(one.faults) for one in plans} == {1, 2, 3, 4}
    assert any(fault.stop_s for one in plans for fault in one.faults)


def test_each_victim_is_killed_alone_within_33_numbers_wherever_they_begin() -> None:
    for first in (0, 7, SEED):
        assert {plan(first + index).alone for index in range(33)} >= set(VICTIMS)


def test_whoever_is_killed_alone_has_a_task_to_lose() -> None:
    for one in MANY[::3]:
        if one.alone in OF_ONE_SANDBOX:
            assert one.works[one.faults[0].sandbox].kind in (Kind.TASK, Kind.SESSION)


def test_a_session_that_is_killed_alone_rests_until_its_loss_shows() -> None:
    killed = [one.works[one.faults[0].sandbox] for one in MANY[::3] if one.alone in OF_ONE_SANDBOX]
    assert {work.rest_s for work in killed if work.kind is Kind.SESSION} == {LOSS_SHOWS_S}
    others = [work.rest_s for one in MANY for work in one.works if work.kind is Kind.SESSION and not one.alone]
    assert 0.3 < sum(rest > 0 for rest in others) / len(others) < 0.7


def test_few_runs_wait_for_a_lease() -> None:
    share = sum(any(work.kind is Kind.LEASE for work in one.works) for one in MANY) / len(MANY)
    assert 0.03 < share < 0.12
