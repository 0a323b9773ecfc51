"""Asking those who may lie or be silent: an answer is validated in the workflow, where a failure can be caught.

The SDK fails the whole run when a typed result does not validate; one host must not be able to do that to a sweep.
"""

from typing import TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, ValidationError

    from paddock.contracts.hosts import SandboxRef, Sealed, Undone

from workflows.saga import Undo, compensate, read, seconds

T = TypeVar("T")
ANSWER_S = 60.0
FOR_EVER = RetryPolicy(initial_interval=seconds(1), maximum_interval=seconds(30))


async def ask(name: str, argument: object, queue: str, answer: type[T], summary: str, start_s: float = ANSWER_S) -> T:
    """An answer within bounds; raises ActivityError, or ValidationError for one that is malformed."""
    said = await workflow.execute_activity(
        name,
        argument,
        task_queue=queue,
        result_type=RawValue,
        schedule_to_start_timeout=seconds(start_s),
        schedule_to_close_timeout=seconds(start_s + ANSWER_S),
        start_to_close_timeout=seconds(ANSWER_S),
        heartbeat_timeout=seconds(10),
        retry_policy=RetryPolicy(initial_interval=seconds(0.2), maximum_interval=seconds(5)),
        summary=summary,
    )
    return read(said, answer)


async def ask_or_none(
    name: str, argument: object, queue: str, answer: type[T], summary: str, start_s: float = ANSWER_S
) -> T | None:
    """The same, with None for whoever is silent or says nothing that can be read."""
    try:
        return await ask(name, argument, queue, answer, summary, start_s)
    except (ActivityError, ValidationError) as wrong:
        workflow.logger.warning("%s on %s: %s", name, queue, wrong.__cause__ or wrong)
        return None


async def ask_until_answered(name: str, argument: BaseModel, queue: str, answer: type[T], summary: str) -> T:
    """An answer that can be read, however long that takes."""
    while True:
        said = await workflow.execute_activity(
            name,
            argument,
            task_queue=queue,
            result_type=RawValue,
            start_to_close_timeout=seconds(300),
            heartbeat_timeout=seconds(10),
            retry_policy=FOR_EVER,
            summary=summary,
        )
        try:
            return read(said, answer)
        except ValidationError as wrong:
            workflow.logger.warning("%s on %s: %s", name, queue, wrong)
        await workflow.sleep(30, summary="an answer that could not be read: ask again")


async def undo(what: Undo, ref: SandboxRef, queue: str, summary: str) -> Undone | Sealed:
    """An undo, retried for as long as the caller waits; raises ValidationError for an answer that is malformed."""
    answer = await compensate(what, ref, queue, summary=summary)
    assert isinstance(answer, Undone | Sealed)
    return answer
