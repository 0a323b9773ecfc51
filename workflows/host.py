"""`Host`: a machine that joined. One heartbeat for its whole life says that it is there; without it, it is fenced."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, TypeAdapter, ValidationError

    from paddock.contracts import names
    from paddock.contracts.hosts import Fenced, HostNews, HostSpec

from workflows.saga import AsItCame

T = TypeVar("T")
HOLD = timedelta(days=3650)
# Heartbeat, retry and a new worker's chance: a host is called lost after 8 + 1 + 14 s without a word.
HEARTBEAT = timedelta(seconds=8)
NEW_WORKER = timedelta(seconds=14)
# A sandbox that was placed a moment ago may not be listed yet.
TELL_AGAIN = (timedelta(seconds=5), timedelta(seconds=25), timedelta(seconds=60))
FOR_EVER = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


@workflow.defn(name=names.HOST, failure_exception_types=[ValidationError])
class Host:
    """A host's entity: `ready` while its hold heartbeats, `unreachable` while nobody answers, `gone` at its end."""

    @workflow.init
    def __init__(self, spec: HostSpec) -> None:
        self.spec, self.state, self.why = spec, "joining", ""
        self.left = self.ended = False
        self.returned = False
        self.over = (
            False  # an answer in the same workflow task as a cancel swallows the cancel: so it is also said here
        )

    @workflow.run
    async def run(self, spec: HostSpec) -> str:
        if not spec.lost:
            await workflow.wait_condition(lambda: self.returned or self.left)
        while not self.left:
            if self.returned:
                self._show("ready")
                await self._first(self._hold(), workflow.wait_condition(lambda: self.left))
                self.returned = False
            if not self.left:
                why = f"host {self.spec.host} has not answered since {workflow.now().isoformat(timespec='seconds')}"
                self._show("unreachable", why)
                await self._first(
                    self._answers(),
                    self._fence(why),
                    self._tell_again(why),
                    workflow.wait_condition(lambda: self.left),
                )
            if self.ended:
                await self._tell_again(self.why, gone=True)
                break
            if not self.left and workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(self.spec.model_copy(update={"lost": not self.returned}))
        self._show("gone", self.why)
        return self.state

    async def _first(self, *what: Awaitable[object]) -> None:
        """Until one of them is over; the others are cancelled."""
        self.over = False
        tasks = [asyncio.ensure_future(one) for one in what]
        await workflow.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.over = True
        for task in tasks:
            task.cancel()
        for over in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(over, Exception) and not isinstance(over, ActivityError):
                raise over

    async def _hold(self) -> None:
        await workflow.execute_activity(
            "hold_host",
            self.spec,
            task_queue=names.host_control_queue(self.spec.environment, self.spec.host),
            start_to_close_timeout=HOLD,
            schedule_to_start_timeout=NEW_WORKER,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=1)),
            summary="one heartbeat for the whole host",
        )

    async def _answers(self) -> None:
        """Over once a worker of the host has looked at what it holds, whenever it is there again."""
        await workflow.execute_activity(
            "check_host",
            self.spec,
            task_queue=names.host_control_queue(self.spec.environment, self.spec.host),
            start_to_close_timeout=timedelta(seconds=300),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=FOR_EVER,
            summary="the host is back, and looks at what it holds",
        )
        self.returned = True

    async def _fence(self, why: str) -> None:
        """Have the machine ended; where nobody can, wait for it without an end."""
        ground = names.ground_queue(self.spec.environment)
        fenced = await self._ask("fence_host", self.spec, ground, Fenced, "end the lost machine")
        if fenced.gone:
            self.ended, self.why = True, fenced.checked_by
            return
        self._show("unreachable", f"{why}; it cannot be ended from here: {fenced.checked_by}")
        await workflow.wait_condition(lambda: self.ended or self.over)

    async def _tell_again(self, words: str, gone: bool = False) -> None:
        """Tell its sandboxes, and again those that were not listed yet; of a loss, it is never over by itself."""
        await self._tell(words, gone)
        for after in TELL_AGAIN:
            if self.over and not gone:
                return
            await workflow.sleep(after, summary="sandboxes that were not listed yet")
            await self._tell(words, gone)
        await workflow.wait_condition(lambda: gone or self.over)

    async def _tell(self, words: str, gone: bool) -> None:
        news = HostNews(environment=self.spec.environment, host=self.spec.host, gone=gone, words=words)
        summary = "tell its sandboxes that it is gone" if gone else "tell its sandboxes that it is lost"
        await self._ask("tell_sandboxes", news, names.CONTROL_QUEUE, int, summary)

    async def _ask(self, name: str, argument: BaseModel, queue: str, answer: type[T], summary: str) -> T:
        while True:
            said = await workflow.execute_activity(
                name,
                argument,
                task_queue=queue,
                result_type=AsItCame,
                start_to_close_timeout=timedelta(seconds=300),
                heartbeat_timeout=timedelta(seconds=10),
                retry_policy=FOR_EVER,
                summary=summary,
            )
            try:
                return TypeAdapter(answer).validate_python(said.root)
            except ValidationError as wrong:
                workflow.logger.warning("%s on %s: %s", name, queue, wrong)
            await workflow.sleep(30, summary="an answer that could not be read: ask again")

    def _show(self, state: str, why: str = "") -> None:
        self.state = state
        rows = {
            "host": f"`{self.spec.host}`",
            "environment": f"`{self.spec.environment}`",
            "state": f"**{state}**",
            "slots": str(self.spec.slots),
            "why": why,
        }
        table = "".join(f"| {name}\u00a0 | {value} |\n" for name, value in rows.items() if value)
        workflow.set_current_details(f"| | |\n|---|---|\n{table}")

    @workflow.signal(description="The host's worker started, again or for the first time")
    def joined(self, spec: HostSpec) -> None:
        if (spec.environment, spec.host) == (self.spec.environment, self.spec.host):  # no other host's word counts here
            self.spec, self.returned = spec, True

    @workflow.signal(description="The host leaves its environment for good")
    def leave(self) -> None:
        self.left = True

    @workflow.query(description="Where the host is: joining, ready, unreachable or gone")
    def status(self) -> str:
        return self.state
