"""Mistakes that the harness must catch, planted into the workflow of one worker process; and a changed step list."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from temporalio.workflow import ActivityCancellationType

from tests.workflows.harness.plan import Plan
from workflows import outcome, saga, sandbox, steps
from workflows.saga import Saga, Step

Go = Callable[[Step], Awaitable[None]]


def use(plan: Plan) -> None:
    """Let `Sandbox` walk this plan."""
    steps.BEFORE_THE_TASK = plan.before_the_task  # type: ignore[misc]
    for step in plan.before_the_task:
        sandbox.STATE_OF.setdefault(step.name, sandbox.State.BOOTING)


def plant(mistake: str) -> None:
    """Change what was imported; for a process that does nothing else."""
    if mistake:
        MISTAKES[mistake]()


async def _undo_registered_after_its_do(self: Saga, steps: tuple[Step, ...], go: Go) -> None:
    for step in steps:
        if self.ending:
            return
        if step.do:
            await go(step)
        if step.undo:
            self.taken.append(step)


async def _no_ending_check(self: Saga, steps: tuple[Step, ...], go: Go) -> None:
    for step in steps:
        if step.undo:
            self.taken.append(step)
        if step.do:
            await go(step)


async def _oldest_first(self: Saga, back: Go) -> None:
    while self.taken:
        await back(self.taken[0])
        self.taken.pop(0)


async def _twice(self: Saga, back: Go) -> None:
    while self.taken:
        for _ in range(2):
            await back(self.taken[-1])
        self.taken.pop()


_backward = Saga.backward
_stumbled: list[bool] = []


async def _stumble_once(self: Saga, back: Go) -> None:
    if not _stumbled:
        _stumbled.append(True)
        raise RuntimeError("a mistake in the workflow's own code")
    await _backward(self, back)


async def _bare(what: Awaitable[Any]) -> Any:
    return await what


def _try_cancel() -> None:
    kinds = SimpleNamespace(WAIT_CANCELLATION_COMPLETED=ActivityCancellationType.TRY_CANCEL)
    saga.ActivityCancellationType = kinds  # type: ignore[misc,assignment]


def _set(owner: Any, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


def _without_undo(name: str) -> Callable[[], None]:
    def change() -> None:
        [old] = [step for step in steps.BEFORE_THE_TASK if step.name == name]
        new = replace(old, undo=None)
        steps.BEFORE_THE_TASK = tuple(new if step is old else step for step in steps.BEFORE_THE_TASK)  # type: ignore[misc]
        setattr(steps, name.upper(), new)

    return change


def _sealed_before_the_vm_is_gone() -> None:
    rest = tuple(step for step in steps.BEFORE_THE_TASK if step is not steps.SEAL)
    steps.BEFORE_THE_TASK = (*rest, steps.SEAL)  # type: ignore[misc]


MISTAKES: dict[str, Callable[[], None]] = {
    "undo_registered_after_its_do": _set(Saga, "forward", _undo_registered_after_its_do),
    "no_ending_check": _set(Saga, "forward", _no_ending_check),
    "oldest_undone_first": _set(Saga, "backward", _oldest_first),
    "undone_twice": _set(Saga, "backward", _twice),
    "a_workflow_task_fails": _set(Saga, "backward", _stumble_once),
    "a_cancel_reaches_the_undo": _set(sandbox, "uncancelled", _bare),
    "try_cancel": _try_cancel,
    "receipts_not_looked_for": _set(outcome.Notes, "unproved", lambda *_: ""),
    "no_undo_of_the_slot": _without_undo("place"),
    "no_undo_of_the_credentials": _without_undo("fence"),
    "sealed_before_the_vm_is_gone": _sealed_before_the_vm_is_gone,
}
