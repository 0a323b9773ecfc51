"""Whatever happens to whichever step: the sandbox ends, all of it is gone, and its receipts say so."""

import pytest

from tests.workflows.conftest import Played
from tests.workflows.harness.cases import Case, cases
from tests.workflows.harness.invariants import check
from tests.workflows.harness.plan import LONGER, REAL, VOLUME

EVERY = cases(REAL)
# The same harness over one more step, at its own moves: it was told nothing about it.
ADDED = [case for case in cases(LONGER) if case.move.step is VOLUME]


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_all_of_it_is_gone_after(case: Case, played: Played) -> None:
    ends_well(case, played)


@pytest.mark.parametrize("case", ADDED, ids=str)
def test_a_step_that_is_added_gets_every_fault_too(case: Case, played: Played) -> None:
    ends_well(case, played)


def ends_well(case: Case, played: Played) -> None:
    assert check(played(case, "")).outcome in case.outcomes
