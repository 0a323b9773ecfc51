"""Every case of a plan: a kind of fault at a move of a step. Nothing here knows a step by its name."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paddock.contracts.report import Outcome
from tests.workflows.harness.invariants import Ended
from tests.workflows.harness.plan import REAL, Move, Plan
from tests.workflows.harness.stage import Run, Stage
from tests.workflows.harness.world import Fault
from workflows.saga import Where

Drive = Callable[[Run, Move], Awaitable[None]]
WELL = frozenset({Outcome.SUCCEEDED})
ENDED = frozenset({Outcome.STOPPED, Outcome.CANCELLED})
BROKEN = frozenset({Outcome.ERROR})


@dataclass(frozen=True, slots=True)
class Kind:
    """What happens, to which moves, and which outcomes that may have; `undone` when it happens to an undo."""

    name: str
    fault: Fault
    at: Callable[[Move], bool]
    drive: Drive | None = None
    done: frozenset[Outcome] = WELL
    undone: frozenset[Outcome] = WELL
    own_control: bool = False
    own_host: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one move."""

    kind: Kind
    move: Move
    plan: Plan = REAL

    def __str__(self) -> str:
        return f"{self.kind.name}-{self.move}"

    @property
    def outcomes(self) -> frozenset[Outcome]:
        if self.move.back:
            return self.kind.undone
        # Told behind the last do, it may have been about to end by itself.
        last = self.move == [move for move in self.plan.moves if not move.back][-1]
        return self.kind.done | (WELL if last and self.kind.done is ENDED else frozenset())

    async def play(self, stage: Stage, **options: str) -> Ended:
        """Run it, and answer what is there after it."""
        kind = self.kind
        async with stage.run(
            str(self),
            plan=self.plan,
            faults={self.move: kind.fault},
            own_control=kind.own_control,
            own_host=kind.own_host,
            **options,
        ) as run:
            await run.start()
            if kind.drive:
                await kind.drive(run, self.move)
            return await run.until_ended()


async def _end(run: Run, move: Move, ways: str) -> None:
    await run.until_said("inside", move)
    for way in ways.split("+"):
        if way == "stop" and move.local:
            run.stop_soon()  # taken only when its workflow task is over
        elif way == "stop":
            await run.stop()
        else:
            await run.cancel()
    if not move.local:
        run.world.note("told", move)
    if move.back or move.local:
        run.release(move)


def _told(ways: str) -> Drive:
    async def drive(run: Run, move: Move) -> None:
        await _end(run, move, ways)

    return drive


async def _cancel_again(run: Run, move: Move) -> None:
    """A second and a third cancel while it is already ending."""
    await _end(run, move, "cancel")
    if not move.back and move.act.where is not Where.SLOTS:  # where nobody answered the placement, nothing is undone
        await run.until_undoing()
    await run.cancel()
    await run.cancel()


async def _gone(run: Run, move: Move) -> None:
    """No control worker is there while the activity answers."""
    await run.until_said("inside", move)
    assert run.control
    await run.control.end()


async def _answered(run: Run, move: Move) -> None:
    run.release(move)
    await run.until_said("answered", move)
    await run.until_server_knows()


async def _kill_control(run: Run, move: Move) -> None:
    await _gone(run, move)
    if not move.local:  # that one died with the control worker
        await _answered(run, move)
    run.start_control()


async def _cancel_behind(run: Run, move: Move) -> None:
    """The workflow hears in one task that the step is over and that it is cancelled."""
    await _gone(run, move)
    await _answered(run, move)
    await run.cancel()
    run.world.note("told", move)
    run.start_control()


async def _cancel_before(run: Run, move: Move) -> None:
    """As before, in the other order."""
    await _gone(run, move)
    await run.cancel()
    run.world.note("told", move)
    await _answered(run, move)
    run.start_control()


async def _stop_behind(run: Run, move: Move) -> None:
    await _gone(run, move)
    await _answered(run, move)
    run.stop_soon()
    await asyncio.sleep(0.2)  # nothing tells that the server has it; later is only another case of the same
    run.start_control()


async def _killed_host(run: Run, move: Move) -> None:
    await run.until_said("fired", move)
    assert run.host
    await run.until(lambda: not (run.host and run.host.alive))
    run.start_host()


async def _killed_both(run: Run, move: Move) -> None:
    await run.until_said("fired", move)
    assert run.control
    await run.control.end()
    run.start_control()
    await _killed_host(run, move)


def _any(move: Move) -> bool:
    return True


def _do(move: Move) -> bool:
    return not move.back


def _remote(move: Move) -> bool:
    return not move.local


def _remote_do(move: Move) -> bool:
    return not move.local and not move.back


def _proves(move: Move) -> bool:
    return move.back and bool(move.step.receipts)


KINDS = (
    Kind("break_before_it", Fault.BREAK_BEFORE, _any, done=BROKEN),
    Kind("break_after_it", Fault.BREAK_AFTER, _any, done=BROKEN),
    Kind("lose_the_answer", Fault.LOSE_ANSWER, _any),
    Kind("run_twice", Fault.TWICE, _remote),
    Kind("leave_unproved", Fault.UNPROVED, _proves),
    Kind("forget_a_receipt", Fault.NO_RECEIPT, _proves),
    *(
        Kind(f"{name}{heard}", fault, at, _told(ways), done=ENDED)
        for name, ways in (("cancel", "cancel"), ("stop", "stop"), ("stop_and_cancel", "stop+cancel"))
        for heard, fault, at in (("", Fault.HOLD, _any), ("_unheard", Fault.HOLD_DEAF, _remote_do))
    ),
    Kind("cancel_again", Fault.HOLD, _remote, _cancel_again, done=ENDED),
    Kind("cancel_behind", Fault.HOLD, _remote_do, _cancel_behind, done=ENDED, own_control=True),
    Kind("cancel_just_before_the_answer", Fault.HOLD, _remote_do, _cancel_before, done=ENDED, own_control=True),
    Kind("stop_behind", Fault.HOLD, _remote_do, _stop_behind, done=ENDED, own_control=True),
    Kind("kill_the_control_worker", Fault.HOLD, _any, _kill_control, own_control=True),
    Kind("kill_the_host_worker", Fault.DIE, _remote, _killed_host, own_host=True),
    Kind("kill_both_workers", Fault.DIE, _remote, _killed_both, own_control=True, own_host=True),
)


def cases(plan: Plan) -> list[Case]:
    """All of them."""
    return [Case(kind, move, plan) for kind in KINDS for move in plan.moves if kind.at(move)]


async def play_all(
    stage: Stage, wanted: list[tuple[Case, str]], at_once: int = 24
) -> dict[tuple[Case, str], Ended | Exception]:
    """Play many side by side, each with a mistake or none; one that could not be played answers why."""
    room = asyncio.Semaphore(at_once)

    async def play(case: Case, mistake: str) -> Ended | Exception:
        async with room:
            try:
                return await case.play(stage, **({"mistake": mistake} if mistake else {}))
            except Exception as wrong:
                return wrong

    return dict(zip(wanted, await asyncio.gather(*(play(*one) for one in wanted)), strict=True))
