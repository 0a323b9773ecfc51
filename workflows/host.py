"""`Host`: a machine that joined or is made. One heartbeat for its whole life says that it is there; without, fenced."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import names
    from paddock.contracts.errors import ErrorKind
    from paddock.contracts.ground import DrainSpec, HostReport
    from paddock.contracts.hosts import Fenced, HostNews, HostSpec
    from paddock.contracts.report import Receipt

from workflows.asking import FOR_EVER, ask_until_answered
from workflows.growth import Growth
from workflows.saga import uncancelled

HOLD = timedelta(days=3650)
# Heartbeat, retry and a new worker's chance: a host is called lost after 8 + 1 + 14 s without a word.
HEARTBEAT = timedelta(seconds=8)
NEW_WORKER = timedelta(seconds=14)
# A sandbox that was placed a moment ago may not be listed yet.
TELL_AGAIN = (timedelta(seconds=5), timedelta(seconds=25), timedelta(seconds=60))
# Temporal's index lags a little: a host is empty when two looks say so.
LOOKS = 2
LOOK_AGAIN, LOOK_AT_MOST = timedelta(seconds=5), timedelta(seconds=60)
STATE_KEY = SearchAttributeKey.for_keyword(names.STATE)
SLOTS, SINCE = "slots", "since"  # the memo that pools read


@workflow.defn(name=names.HOST, failure_exception_types=[ValidationError])
class Host:
    """A host's entity: made when it is `wanted`, `ready` while its hold heartbeats, `gone` at its end.

    `joining`, or `recorded`, `creating`, `booting`, `proving`; then `ready`, and `unreachable` while nobody answers;
    `draining` and `terminating` when it is no longer needed.
    """

    @workflow.init
    def __init__(self, spec: HostSpec) -> None:
        self.spec, self.state, self.why = spec, "joining", ""
        self.growth = Growth(spec, self._show) if spec.wanted else None
        self.drain_spec, self.drain_ends = spec.drain, spec.drain_ends
        self.receipts: list[Receipt] = []
        self.left = self.ended = self.emptied = self.again = False
        self.returned = spec.here
        self.served = spec.grown is not None  # sandboxes may have come to it
        self.over = (
            False  # an answer in the same workflow task as a cancel swallows the cancel: so it is also said here
        )

    @workflow.run
    async def run(self, spec: HostSpec) -> HostReport:
        await self._refuse_a_stranger()
        since = spec.since or workflow.now()
        self.spec = self.spec.model_copy(update={"since": since})
        workflow.upsert_memo({SLOTS: spec.slots, SINCE: since.isoformat()})
        workflow.upsert_search_attributes(
            [
                STATE_KEY.value_set("recorded" if self.growth else self.state),
                SearchAttributeKey.for_keyword(names.ENVIRONMENT).value_set(spec.environment),
                SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE).value_set(spec.host),
            ]
        )
        if self.growth is None:
            await self._live()
            return self._report()
        failed = False
        try:
            if spec.grown or await self._make():
                await self._live()
            else:
                failed = not (self.left or self.drain_spec)
        except asyncio.CancelledError:  # an eviction lands here too, see `uncancelled`
            self.why = workflow.cancellation_reason() or "cancelled"
        self.over = self.growth.saga.ending = True
        self.receipts = await uncancelled(self.growth.down())
        if self.served and not (self.ended or self.emptied):
            await uncancelled(self._tell_again(self.why or "its machine was ended", gone=True))
        self._show("gone", self.why)
        report = self._report()
        if failed:
            last = report.grown.tried[-1] if report.grown and report.grown.tried else None
            words = f"no machine for host {spec.host}: {last.why if last else 'nothing was tried'}"
            raise ApplicationError(words, report, type=last.kind if last else "no-machine", non_retryable=True)
        return report

    async def _refuse_a_stranger(self) -> None:
        spec, words = self.spec, ""
        own = names.host_workflow_id(spec.environment, spec.host)
        if workflow.info().workflow_id != own:
            words = f"host {spec.host} of {spec.environment} is the workflow {own}, and no other"
        elif spec.attempt and not spec.wanted:
            words = f"machine {spec.attempt} of host {spec.host} was ordered by nobody, or its order is over"
        elif spec.grown and not (spec.wanted and spec.grown.choice and spec.grown.attempt > 0):
            words = "grown: a run that goes on says it, and nobody else"
        if words:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise ApplicationError(words, type=ErrorKind.NOT_ALLOWED.value, non_retryable=True)

    async def _make(self) -> bool:
        """Whether a machine proved itself; told to go meanwhile, it is ended instead."""
        assert self.growth
        making = asyncio.ensure_future(self.growth.up())
        told = asyncio.ensure_future(workflow.wait_condition(lambda: self.left or self.drain_spec is not None))
        try:
            await workflow.wait([making, told], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.left, self.why = True, workflow.cancellation_reason() or "cancelled"
        if self.left or self.drain_spec:
            self.growth.saga.ending = True
        making.cancel()
        told.cancel()
        [made, _] = await uncancelled(asyncio.gather(making, told, return_exceptions=True))
        if isinstance(made, Exception):
            raise made
        return made is True

    async def _live(self) -> None:
        """From the first hold to the end; the machine is ended behind it, when we made it."""
        if not (self.spec.lost or self.spec.here or self.growth):
            await workflow.wait_condition(lambda: self.returned or self.left)
        if self.growth and not self.spec.lost:
            self.returned = True
        while not self.left:
            if self.returned:
                self.served = True
                self._show("draining" if self.drain_spec else "ready")
                await self._first(self._hold(), self._drain(), workflow.wait_condition(lambda: self.left))
                self.returned = self.again  # it is here, and only the history is long
            if not (self.left or self.again):
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
            if not self.left and (self.again or workflow.info().is_continue_as_new_suggested()):
                await workflow.wait_condition(workflow.all_handlers_finished)
                grown = self.growth.grown if self.growth else None
                on: dict[str, object] = {"lost": not self.returned, "here": self.returned, "grown": grown}
                on |= {"drain": self.drain_spec, "drain_ends": self.drain_ends}
                workflow.continue_as_new(self.spec.model_copy(update=on))
        if not self.growth:
            self._show("gone", self.why)

    async def _drain(self) -> None:
        """Once told to: no new sandboxes, then wait until the last one is gone; who stays too long is stopped."""
        await workflow.wait_condition(lambda: self.drain_spec is not None)
        assert self.drain_spec
        assert self.drain_ends
        reason = self.drain_spec.reason
        self._show("draining", reason)
        own, control = names.host_control_queue(self.spec.environment, self.spec.host), names.CONTROL_QUEUE
        news = HostNews(environment=self.spec.environment, host=self.spec.host, words=f"the host drains: {reason}")
        empty, wait = 0, LOOK_AGAIN
        while True:
            # Asked at each look: a worker that started again meanwhile does not know it any more.
            held = await ask_until_answered("stop_placing", self.spec, own, int, "no new sandboxes here")
            left = await ask_until_answered("count_sandboxes", self.spec, control, int, "sandboxes that are left")
            empty, wait = (0, min(2 * wait, LOOK_AT_MOST)) if left or held else (empty + 1, LOOK_AGAIN)
            if empty == LOOKS:
                self.left = self.emptied = True
                self.why = self.why or reason
                return
            if left and workflow.now() >= self.drain_ends:
                await ask_until_answered("stop_sandboxes", news, control, int, "stop those that stayed too long")
            if workflow.info().is_continue_as_new_suggested():
                self.again = True
                return
            await workflow.sleep(wait, summary="sandboxes that are left")

    def _report(self) -> HostReport:
        return HostReport(
            environment=self.spec.environment,
            host=self.spec.host,
            state=self.state,
            why=self.why,
            grown=self.growth.grown if self.growth else None,
            receipts=tuple(self.receipts),
        )

    async def _first(self, *what: Awaitable[object]) -> None:
        """Until one of them is over; the others are cancelled."""
        self.over = False
        tasks = [asyncio.ensure_future(one) for one in what]
        try:
            await workflow.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.over = True
            for task in tasks:
                task.cancel()
            ended = await uncancelled(asyncio.gather(*tasks, return_exceptions=True))
        for over in ended:
            if isinstance(over, Exception) and not isinstance(over, ActivityError):
                raise over

    async def _hold(self) -> None:
        await workflow.execute_activity(
            "hold_host",
            self.spec,
            result_type=RawValue,  # nothing that it says counts
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
            result_type=RawValue,  # nothing that it says counts
            task_queue=names.host_control_queue(self.spec.environment, self.spec.host),
            start_to_close_timeout=timedelta(seconds=300),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=FOR_EVER,
            summary="the host is back, and looks at what it holds",
        )
        self.returned = True

    async def _fence(self, why: str) -> None:
        """Have the machine ended; where nobody can, wait for it without an end."""
        if self.growth:
            await self.growth.down()
            self.ended, self.why = True, f"{why}; its provider ended the machine"
            return
        ground = names.ground_queue(self.spec.environment)
        fenced = await ask_until_answered("fence_host", self.spec, ground, Fenced, "end the lost machine")
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
        await ask_until_answered("tell_sandboxes", news, names.CONTROL_QUEUE, int, summary)

    def _show(self, state: str, why: str = "") -> None:
        if state != self.state:
            workflow.upsert_search_attributes([STATE_KEY.value_set(state)])
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
        if (spec.environment, spec.host) != (self.spec.environment, self.spec.host):
            return  # no other host's word counts here
        if self.growth and not self.growth.joined(spec):
            return  # an earlier attempt's machine, which is being ended
        if spec.slots != self.spec.slots:
            workflow.upsert_memo({SLOTS: spec.slots})
        said = {"relay": spec.relay, "slots": spec.slots, "attempt": spec.attempt}
        self.spec, self.returned = self.spec.model_copy(update=said), True

    @workflow.signal(description="The host leaves its environment for good")
    def leave(self) -> None:
        self.left = True

    @workflow.signal(description="No new sandboxes; once it is empty, the host goes, and what Paddock made is ended")
    def drain(self, how: DrainSpec) -> None:
        if self.drain_spec is None:
            self.drain_spec, self.drain_ends = how, workflow.now() + timedelta(seconds=how.wait_s)

    @workflow.query(description="Where the host is, from recorded or joining to gone")
    def status(self) -> str:
        return self.state
