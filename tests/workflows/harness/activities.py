"""Activities for any step, made from its data: what it takes exists, what it undoes is gone, and faults by plan."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from paddock.contracts.report import Gone, Receipt
from tests.workflows.harness.plan import Move
from tests.workflows.harness.world import Fault, World
from workflows.saga import Where

POLL_S = 0.03
DEAF_S = 3.0  # long enough for an undo that does not wait for its do
SAMPLES: dict[object, object] = {str: "x", int: 1, float: 1.0, bool: True}
Activity = Callable[[dict[str, Any]], Awaitable[BaseModel]]


def fill(model: type[BaseModel], known: dict[str, object]) -> BaseModel:
    """An answer of this type: what is known by its name, a sample for what else is required."""
    values: dict[str, object] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name in known:
            values[name] = known[name]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            values[name] = fill(kind, known)
        elif field.is_required():
            values[name] = SAMPLES[kind]
    return model(**values)


def activity_of(move: Move, directory: Path, host: str) -> Activity:
    """The activity behind one move; the worlds of all sandboxes lie in `directory`."""

    @activity.defn(name=move.act.activity)
    async def act(argument: dict[str, Any]) -> Any:
        ref = argument.get("ref", argument)
        return await Call(move, World(directory, ref["workflow_id"]), host).run()

    return act


class Call:
    """One attempt of one move."""

    def __init__(self, move: Move, world: World, host: str) -> None:
        self.move, self.world, self.host = move, world, host
        info = activity.info()
        self.id, self.attempt, self.local = info.activity_id, info.attempt, info.is_local

    async def run(self) -> BaseModel:
        self.note("begun")
        try:
            answer = await self._act(self.world.fault(self.move))
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        except ApplicationError:
            self.note("broke")
            raise
        self.note("answered")
        return answer

    async def _act(self, fault: Fault) -> BaseModel:
        if fault is not Fault.NONE:
            self.note("fired")
        # An undo is never given up, so it never fails for good.
        broken = ApplicationError(f"{self.move} broke", type="internal", non_retryable=not self.move.back)
        if fault is Fault.BREAK_BEFORE:
            raise broken
        if fault in (Fault.UNPROVED, Fault.NO_RECEIPT):
            return self._answer(Gone.UNPROVED if fault is Fault.UNPROVED else None)
        if fault is Fault.LIE:
            return self._answer(Gone.PROVED)
        if fault is Fault.FULL:
            await self._hold(deaf=True)
            return self._answer(Gone.PROVED, full=True)
        self._effect()
        match fault:
            case Fault.BREAK_AFTER:
                raise broken
            case Fault.LOSE_ANSWER:
                raise ApplicationError("the answer was lost", type="lost")
            case Fault.TWICE:
                await self._until_the_second_try_answered()
            case Fault.DIE:
                os.kill(os.getpid(), signal.SIGKILL)
            case Fault.HOLD:
                await self._hold(deaf=False)
            case Fault.HOLD_DEAF:
                await self._hold(deaf=True)
                self._effect()
        return self._answer(Gone.PROVED)

    def _effect(self) -> None:
        what = "freed" if self.move.back else "took"
        for resource in self.move.step.receipts:
            self.note(what, resource)
        if self.move.seals:
            self.note("sealed")

    async def _hold(self, *, deaf: bool) -> None:
        self.note("inside")
        try:
            while not self.world.said("released", self.move):
                if not self.local:
                    activity.heartbeat()
                await asyncio.sleep(POLL_S)
        except asyncio.CancelledError:
            if not deaf:
                raise
            await self._until(lambda: self.world.said("answered", f"undo_{self.move}"), DEAF_S)

    async def _until_the_second_try_answered(self) -> None:
        def answered() -> bool:
            lines = self.world.lines()
            return any(line.what == "answered" and line.move == str(self.move) for line in lines)

        while not answered():
            try:
                await asyncio.sleep(POLL_S)
            except asyncio.CancelledError:
                continue  # it hangs: it hears nothing

    async def _until(self, holds: Callable[[], bool], within_s: float) -> None:
        until = asyncio.get_running_loop().time() + within_s
        while not holds() and asyncio.get_running_loop().time() < until:
            activity.heartbeat()
            await asyncio.sleep(POLL_S)

    def _answer(self, gone: Gone | None, *, full: bool = False) -> BaseModel:
        receipts = tuple(
            Receipt(resource=resource, id=resource, gone=gone, checked_by="the world's journal", at=datetime.now(UTC))
            for resource in (self.move.step.receipts if gone else ())
        )
        return fill(
            self.move.act.answer, {"host": self.host, "exit": 0, "verified": True, "full": full, "receipts": receipts}
        )

    def note(self, what: str, detail: str = "") -> None:
        self.world.note(what, self.move, detail, self.id, self.attempt)


def by_queue(moves: tuple[Move, ...], directory: Path, host: str) -> dict[Where, list[Activity]]:
    """All activities, by whose worker does them."""
    found: dict[Where, list[Activity]] = {}
    for move in moves:
        found.setdefault(move.act.where, []).append(activity_of(move, directory, host))
    return found
