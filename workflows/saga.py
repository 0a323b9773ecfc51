"""Steps with an undo and a receipt: the list goes forward, and backward over whatever may exist."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority, RawValue, RetryPolicy
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, TypeAdapter

    from paddock.contracts.hosts import Undone

T = TypeVar("T")


class Where(StrEnum):
    """Whose worker does it."""

    CONTROL = "control"
    SLOTS = "slots"
    HOST = "host"
    HOST_CONTROL = "host/ctl"
    GROUND = "ground"


@dataclass(frozen=True, slots=True)
class Do:
    """An activity, where it runs, and its bounds; `start_s` bounds the wait for a worker."""

    activity: str
    where: Where
    answer: type[BaseModel]
    timeout_s: float = 60
    heartbeat_s: float = 5
    attempts: int = 6
    start_s: float = 60


@dataclass(frozen=True, slots=True)
class Undo:
    """An activity that removes what its step may have made, and proves it gone; retried for ever."""

    activity: str
    answer: type[BaseModel] = Undone
    where: Where = Where.HOST_CONTROL
    timeout_s: float = 60
    heartbeat_s: float = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lifecycle: `do` is absent where something must only be undone.

    `receipts` names the resources that the undo must prove gone; an answer that lacks one of them is no proof.
    """

    name: str
    do: Do | None
    undo: Undo | None = None
    receipts: tuple[str, ...] = ()


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def read(said: RawValue | None, answer: type[T]) -> T:
    """The answer, out of whatever came. Raises ValidationError for what is none: another type, null, no JSON at all.

    The SDK reads an answer outside the workflow's code: what it can't read fails the run, or every task of it for ever.
    """
    data = said.payload.data if said else b""
    if issubclass(answer, BaseModel):
        return answer.model_validate_json(data)
    return TypeAdapter(answer).validate_json(data)


async def perform(do: Do, argument: BaseModel, queue: str, *, summary: str, start_s: float | None = None) -> Any:
    """Run a step forward; a cancel waits until the activity is really over, so that undo never races it.

    Raises ActivityError, or ValidationError for an answer that is malformed.
    """
    start = seconds(do.start_s if start_s is None else start_s)
    said = await workflow.execute_activity(
        do.activity,
        argument,
        task_queue=queue,
        result_type=RawValue,
        start_to_close_timeout=seconds(do.timeout_s),
        schedule_to_start_timeout=start,
        heartbeat_timeout=seconds(do.heartbeat_s),
        retry_policy=RetryPolicy(
            initial_interval=seconds(0.1), maximum_interval=seconds(2), maximum_attempts=do.attempts
        ),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
    )
    return read(said, do.answer)


async def compensate(undo: Undo, argument: BaseModel, queue: str, *, summary: str) -> Any:
    """Run an undo until it succeeds, before anything else that waits on the queue; raises as `perform` does."""
    said = await workflow.execute_activity(
        undo.activity,
        argument,
        task_queue=queue,
        result_type=RawValue,
        start_to_close_timeout=seconds(undo.timeout_s),
        heartbeat_timeout=seconds(undo.heartbeat_s),
        retry_policy=RetryPolicy(initial_interval=seconds(0.1), maximum_interval=seconds(15)),
        priority=Priority(priority_key=1),
        summary=summary,
    )
    return read(said, undo.answer)


async def uncancelled(what: Awaitable[Any]) -> Any:
    """Wait for `what` to its end, whatever is cancelled meanwhile; eviction cancels `what` itself, so this ends."""
    task = asyncio.ensure_future(what)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


class Saga:
    """What may exist now, newest last; `ending` stops every later do, even one whose cancel was swallowed."""

    def __init__(self) -> None:
        self.taken: list[Step] = []
        self.ending = False

    async def forward(self, steps: tuple[Step, ...], go: Callable[[Step], Awaitable[None]]) -> None:
        """Do each step in order; its undo is registered first, because a do may half-succeed."""
        for step in steps:
            if self.ending:
                return
            if step.undo:
                self.taken.append(step)
            if step.do:
                await go(step)

    async def backward(self, back: Callable[[Step], Awaitable[None]]) -> None:
        """Undo newest first; a step is forgotten only after its undo answered."""
        while self.taken:
            await back(self.taken[-1])
            self.taken.pop()
