"""The harness catches mistakes: each is planted into a worker's workflow, and the invariant that names it fails."""

from collections.abc import Callable

import pytest

from tests.workflows.conftest import Played
from tests.workflows.harness import invariants
from tests.workflows.harness.cases import KINDS, Case, Kind
from tests.workflows.harness.invariants import Ended
from tests.workflows.harness.plan import LONGER, REAL, Plan
from tests.workflows.harness.world import Fault

KIND = {kind.name: kind for kind in KINDS}
LIE = Kind("lie", Fault.LIE, lambda move: move.back)
QUIET = Kind("quiet", Fault.NONE, lambda _: True)


def at(kind: str | Kind, name: str, plan: Plan = REAL) -> Case:
    [move] = [move for move in plan.moves if str(move) == name]
    return Case(KIND[kind] if isinstance(kind, str) else kind, move, plan)


CAUGHT = (
    ("undo_registered_after_its_do", at("break_after_it", "boot"), invariants.no_vmm_process_remains),
    ("undo_registered_after_its_do", at("break_after_it", "fence"), invariants.no_credential_lives),
    (
        "undo_registered_after_its_do",
        at("break_after_it", "volume", LONGER),
        invariants.nothing_of_any_other_step_remains,
    ),
    ("", at(LIE, "undo_boot"), invariants.no_vmm_process_remains),
    ("", at(LIE, "undo_volume", LONGER), invariants.nothing_of_any_other_step_remains),
    ("no_ending_check", at("cancel_unheard", "boot"), invariants.no_later_do_begins_after_the_end),
    ("no_ending_check", at("stop_unheard", "volume", LONGER), invariants.no_later_do_begins_after_the_end),
    ("try_cancel", at("cancel_unheard", "boot"), invariants.no_vmm_process_remains),
    ("try_cancel", at("cancel_unheard", "fence"), invariants.no_credential_lives),
    ("receipts_not_looked_for", at("forget_a_receipt", "undo_boot"), invariants.every_receipt_is_present),
    ("receipts_not_looked_for", at("leave_unproved", "undo_fence"), invariants.every_receipt_is_present),
    ("no_undo_of_the_slot", at(QUIET, "place"), invariants.no_slot_is_held),
    ("no_undo_of_the_credentials", at(QUIET, "fence"), invariants.no_credential_lives),
    ("sealed_before_the_vm_is_gone", at(QUIET, "boot"), invariants.the_audit_chain_is_whole),
    ("oldest_undone_first", at(QUIET, "boot"), invariants.undone_newest_first),
    ("undone_twice", at(QUIET, "boot"), invariants.nothing_is_undone_twice),
    ("a_workflow_task_fails", at(QUIET, "boot"), invariants.no_workflow_task_fails),
    ("a_cancel_reaches_the_undo", at("cancel", "undo_boot"), invariants.it_ends_with_a_report),
)


@pytest.mark.parametrize(("mistake", "case", "invariant"), CAUGHT, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_planted_mistake_is_caught(
    played: Played, mistake: str, case: Case, invariant: Callable[[Ended], None]
) -> None:
    ended = played(case, mistake)
    with pytest.raises(AssertionError):
        invariant(ended)


def test_every_invariant_has_a_mistake_that_it_catches() -> None:
    assert {invariant for _, _, invariant in CAUGHT} == set(invariants.INVARIANTS)
