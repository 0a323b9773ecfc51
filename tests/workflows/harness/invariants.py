"""What must hold after every case, each a sentence; all of them read the journal and the report, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from paddock.contracts.report import FAILS_THE_WORKFLOW, Gone, SandboxReport
from tests.workflows.harness.plan import Move, Plan
from tests.workflows.harness.world import Line, held
from workflows.saga import Step, Where


@dataclass(frozen=True, slots=True)
class Ended:
    """One sandbox after its end."""

    plan: Plan
    lines: tuple[Line, ...]
    status: str
    report: SandboxReport | None
    events: tuple[str, ...]
    stops: tuple[object, ...] = ()

    def begun(self, *, back: bool) -> list[Line]:
        """Every attempt of a do, or of an undo."""
        moves = {str(move) for move in self.plan.moves if move.back is back and not move.local}
        return [line for line in self.lines if line.what == "begun" and line.move in moves]

    def index(self, what: str, move: str = "") -> int:
        """Where this was said first; behind the end when it never was."""
        found = (i for i, line in enumerate(self.lines) if line.what == what and (not move or line.move == move))
        return next(found, len(self.lines))

    @property
    def held(self) -> set[str]:
        """What exists; a reservation that no host's work confirmed lapses by itself."""
        found = held(self.lines)
        confirmed = {str(move) for move in self.plan.moves if move.act.where is Where.HOST}
        if not any(line.what == "begun" and line.move in confirmed for line in self.lines):
            for step in self.plan.steps:
                for resource in step.receipts if _reserves(step) else ():
                    found.pop(resource, None)
        return set(found)


def no_vmm_process_remains(ended: Ended) -> None:
    assert not ended.held & {"supervisor", "vm", "disk", "rundir", "socket"}


def no_credential_lives(ended: Ended) -> None:
    assert "credential" not in ended.held


def no_slot_is_held(ended: Ended) -> None:
    assert "slot" not in ended.held


def nothing_of_any_other_step_remains(ended: Ended) -> None:
    assert ended.held <= {"supervisor", "vm", "disk", "rundir", "socket", "credential", "slot"}


def no_later_do_begins_after_the_end(ended: Ended) -> None:
    """After somebody told it to end, or after the first undo, no do begins, not even for another try."""
    undos = ended.begun(back=True)
    end = min(ended.index("told"), ended.lines.index(undos[0]) if undos else len(ended.lines))
    late = [line for line in ended.begun(back=False) if ended.lines.index(line) > end]
    assert not late, f"began after the end: {late}"


def every_receipt_is_present(ended: Ended) -> None:
    """Each resource of each step that began has a receipt, and each says that it is gone."""
    assert ended.report
    receipts = {receipt.resource: receipt.gone for receipt in ended.report.receipts}
    begun = {line.move for line in ended.begun(back=False)}
    wanted = {resource for step in ended.plan.steps if step.name in begun for resource in step.receipts}
    assert wanted <= set(receipts), f"no receipt for {wanted - set(receipts)}"
    assert Gone.UNPROVED not in receipts.values()


def the_audit_chain_is_whole(ended: Ended) -> None:
    """Sealed after all but the slot is gone and before the slot is free; nothing happens in it after that."""
    seals = [move for move in ended.plan.moves if move.seals]
    hosts = {str(move) for move in ended.plan.moves if move.act.where is Where.HOST}
    if not any(line.what == "begun" and line.move in hosts for line in ended.lines):
        return  # nothing ever ran that could have written to it
    assert seals
    sealed = ended.index("sealed")
    assert sealed < len(ended.lines), "never sealed"
    outside = {str(Move(step, back)) for step in ended.plan.steps for back in (False, True) if _reserves(step)}
    assert {line.detail for line in held(ended.lines[:sealed]).values() if line.move not in outside} == set()
    after = [line for line in ended.lines[sealed:] if line.what in ("took", "freed") and line.move not in outside]
    assert not after, f"added after the seal: {after}"
    slots = [line for line in ended.lines[:sealed] if line.what == "freed" and line.move in outside]
    assert not slots, f"the slot was free before the seal: {slots}"
    assert ended.report
    assert ended.report.audit.verified


def _reserves(step: Step) -> bool:
    return step.do is not None and step.do.where is Where.SLOTS


def _places(move: Move) -> bool:
    return not move.back and _reserves(move.step)


def undone_newest_first(ended: Ended) -> None:
    """Undos begin in the reverse order of the steps, each after the one before it answered, and none is left out."""
    order = [str(move) for move in ended.plan.moves if move.back]
    first = list(dict.fromkeys(line.move for line in ended.begun(back=True)))
    assert first == sorted(first, key=order.index), f"in the order {first}"
    for before, after in pairwise(first):
        assert ended.index("answered", before) < ended.index("begun", after), f"{after} began before {before} answered"
    begun = {line.move for line in ended.begun(back=False)}
    if ended.report and not ended.report.host:  # nobody's answer was taken: there is nobody to ask, and nothing to undo
        assert begun <= {str(move) for move in ended.plan.moves if _places(move)}
        return
    wanted = {f"undo_{step.name}" for step in ended.plan.steps if step.name in begun and step.undo}
    assert wanted <= set(first), f"never undone: {wanted - set(first)}"


def nothing_is_undone_twice(ended: Ended) -> None:
    """An undo whose answer arrived is not asked for again, unless it left something unproved."""
    asked: dict[str, set[str]] = {}
    for line in ended.begun(back=True):
        asked.setdefault(line.move, set()).add(line.id)
    unproved = {line.move for line in ended.lines if line.detail in ("unproved", "no-receipt")}
    twice = {move for move, ids in asked.items() if len(ids) > 1} - unproved
    assert not twice, f"asked twice: {twice}"


def no_workflow_task_fails(ended: Ended) -> None:
    assert "EVENT_TYPE_WORKFLOW_TASK_FAILED" not in ended.events


def it_ends_with_a_report(ended: Ended) -> None:
    """Completed with its report, or failed with its report in the failure's details; every stop hears the same."""
    assert ended.report, ended.status
    fails = ended.report.outcome in FAILS_THE_WORKFLOW
    assert ended.status == ("FAILED" if fails else "COMPLETED")
    assert all(stop == ended.report for stop in ended.stops)


INVARIANTS: tuple[Callable[[Ended], None], ...] = (
    it_ends_with_a_report,
    no_vmm_process_remains,
    no_credential_lives,
    no_slot_is_held,
    nothing_of_any_other_step_remains,
    no_later_do_begins_after_the_end,
    every_receipt_is_present,
    the_audit_chain_is_whole,
    undone_newest_first,
    nothing_is_undone_twice,
    no_workflow_task_fails,
)


def check(ended: Ended) -> SandboxReport:
    """All of them; answers the report."""
    for holds in INVARIANTS:
        holds(ended)
    assert ended.report
    return ended.report
