"""`Sandbox`: one workflow owns one sandbox and all it ever took, each by its id, with an undo and a receipt."""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, ValidationError

    from paddock.contracts import hosts, names
    from paddock.contracts.errors import ErrorInfo, ErrorKind
    from paddock.contracts.report import FAILS_THE_WORKFLOW, Outcome, SandboxReport
    from paddock.contracts.spec import SandboxSpec, TaskSpec
    from paddock.contracts.status import State

from workflows import outcome, steps
from workflows.doors import LEASE_KEY, STATE_KEY, Doors
from workflows.saga import Do, Step, Undo, Where, compensate, perform, seconds, uncancelled

T = TypeVar("T")
# A supervisor ends its sandbox 2 s behind the lease, the keeper 10 s behind it; their clocks may differ a little.
AFTER_EVERY_DEADLINE_S = 60
STATE_OF = {"place": State.PLACING, "boot": State.BOOTING, "fence": State.FENCING}


@workflow.defn(name=names.SANDBOX, failure_exception_types=[ValidationError])
class Sandbox(Doors):
    """Admit, place, boot, fence, run, collect; then undo all of it, newest first, and answer with the receipts."""

    @workflow.init
    def __init__(self, spec: SandboxSpec = SandboxSpec()) -> None:
        super().__init__(spec)

    @workflow.run
    async def run(self, spec: SandboxSpec = SandboxSpec()) -> SandboxReport:
        self._show(State.ADMITTED)
        workflow.upsert_search_attributes(
            [
                STATE_KEY.value_set(State.ADMITTED),
                LEASE_KEY.value_set(self.lease_end),
                SearchAttributeKey.for_keyword(names.ENVIRONMENT).value_set(spec.environment),
                SearchAttributeKey.for_keyword(names.OWNER).value_set(spec.owner),
                SearchAttributeKey.for_keyword(names.POLICY).value_set(spec.policy),
            ]
        )
        forward = asyncio.ensure_future(self._forward())
        ended = asyncio.ensure_future(self._until_told())
        try:
            await workflow.wait([forward, ended], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the first cancel; an eviction lands here too, see `uncancelled`
            self.end = self.end or (Outcome.CANCELLED, workflow.cancellation_reason() or "")
        self.saga.ending = True  # a do that completes in spite of its cancel swallows the cancel
        forward.cancel()
        ended.cancel()
        [failure, _] = await uncancelled(asyncio.gather(forward, ended, return_exceptions=True))
        if isinstance(failure, ActivityError):
            if self.end is None or outcome.is_loss(failure):
                self.end, self.error = outcome.of_failure(failure, spec)
        elif isinstance(failure, ValidationError):  # it would fail the run at once: undo first
            error = ErrorInfo(kind=ErrorKind.INTERNAL, message=f"an answer of the host is malformed: {failure}")
            self.end, self.error = (Outcome.ERROR, error.message), error
        elif isinstance(failure, Exception):
            raise failure  # a mistake in this workflow: fail the workflow task, undo nothing
        if self.end and self.end[0] is Outcome.SANDBOX_LOST and workflow.now() >= self.lease_end:
            # No control worker was there at the lease's end, so that the supervisor's own deadline came first.
            self.end, self.error = (Outcome.LEASE_ENDED, "the lease ended"), None
        self._show(State.ENDING)
        before = workflow.time()
        await uncancelled(self.saga.backward(self._back))
        self.notes.steps_ms["end"] = (workflow.time() - before) * 1e3
        how, why = self.end or outcome.of_task(self.results)
        if self.notes.any_implied and how is not Outcome.HOST_LOST:  # it was lost while it ended
            how, why = Outcome.HOST_LOST, self.host_gone_how
            self.error = ErrorInfo(kind=ErrorKind.HOST_LOST, message=why)
        recorded = self.booted or self.notes.audit.events  # a boot that nobody began left nothing to verify
        if recorded and not self.notes.audit.verified and how not in outcome.LOSSES.values():
            self.error = ErrorInfo(kind=ErrorKind.AUDIT_BROKEN, message="the sandbox's audit chain does not verify")
            how, why = Outcome.ERROR, self.error.message
        self.report = self.notes.report(
            self.ref, how, why, self.results, self.policy.digest if self.policy else "", self.error
        )
        self.finding = ""
        self._show(State.ENDED)
        await uncancelled(workflow.wait_condition(workflow.all_handlers_finished))
        if how in FAILS_THE_WORKFLOW:
            words = self.error.message if self.error else why
            raise ApplicationError(words, self.report, type=how.value, non_retryable=True)
        return self.report

    async def _forward(self) -> None:
        self.policy = await self._timed("admit", self._resolve(self.spec.policy, self.lease_end))
        await self.saga.forward(steps.BEFORE_THE_TASK, self._go)
        while not self.saga.ending:
            done = len(self.results)
            if len(self.tasks) == done:
                self._show(State.READY)
                try:
                    await workflow.wait_condition(
                        lambda: len(self.tasks) > len(self.results),
                        timeout=seconds(self.spec.idle_s),
                        timeout_summary="idle",
                    )
                except TimeoutError:
                    self.end = (Outcome.LEASE_ENDED, f"idle for {self.spec.idle_s} s")
                    return
            await self._run_task(done + 1, self.tasks[done])
            if self.spec.task:
                break
        if self.spec.outputs and not self.saga.ending:
            await self._collect()

    async def _go(self, step: Step) -> None:
        self._show(STATE_OF[step.name])
        await self._timed(step.name, self._place(step) if step is steps.PLACE else self._do(step))

    async def _place(self, step: Step) -> None:
        assert step.do
        argument = hosts.Reservation(
            ref=self.ref,
            shape=self.spec.shape,
            image=self.spec.image,
            lifetime_s=self.spec.lifetime_s,
            caller_keys=self.keys,
        )
        calling = asyncio.ensure_future(self._call_for_a_host())
        try:
            placed = await self._reserve(step.do, argument)
        finally:
            calling.cancel()
        if placed is None:
            return
        if placed.error:
            raise outcome.refusal(placed.error)
        self.placed = placed
        self.ref = self.ref.model_copy(update={"host": placed.host})
        workflow.upsert_search_attributes([SearchAttributeKey.for_keyword(names.HOST_ATTRIBUTE).value_set(placed.host)])

    async def _reserve(self, do: Do, argument: hosts.Reservation) -> hosts.Placed | None:
        """Ask until a host promises a slot, or refuses for good; None when the end came meanwhile."""
        deadline, wait_s = workflow.time() + self.spec.place_timeout_s, 0.02
        while True:  # a host that filled up behind a poll in flight refuses by its answer: ask again at once
            left = max(1.0, deadline - workflow.time())
            queue = names.slots_queue(self.spec.environment)
            placed: hosts.Placed = await perform(do, argument, queue, summary="a host with a free slot", start_s=left)
            if not placed.full:
                return placed
            if self.saga.ending:  # that answer swallowed the cancel
                return None
            if workflow.time() >= deadline:
                raise outcome.refusal(outcome.no_slot(self.spec))
            left = max(0.01, deadline - workflow.time())
            await workflow.sleep(seconds(min(wait_s, left)), summary="ask for a slot again")
            wait_s = min(2 * wait_s, 2.0)

    async def _call_for_a_host(self) -> None:
        """Once no slot came soon, tell the environment's pool that somebody waits."""
        await workflow.sleep(seconds(steps.CALL_FOR_A_HOST_S), summary="then a host is called for")
        pool = workflow.get_external_workflow_handle(names.pool_workflow_id(self.spec.environment))
        with contextlib.suppress(FailureError):  # there is no pool here
            await pool.signal("need")

    async def _do(self, step: Step) -> None:
        assert step.do
        assert self.policy
        argument: BaseModel
        if step is steps.BOOT:
            argument = hosts.Boot(
                ref=self.ref,
                image=self.spec.image,
                shape=self.spec.shape,
                lease_end=self.lease_end,
                caller_keys=self.keys,
                protected=names.PROTECT in self.spec.labels,
            )
        else:
            argument = hosts.Attach(ref=self.ref, policy=self.policy)
        answer = await perform(step.do, argument, self._queue(step.do.where), summary=step.name)
        if isinstance(answer, hosts.Booted):
            self.booted = True
            self.notes.steps_ms.update({f"boot.{part}": ms for part, ms in answer.parts_ms.items()})

    async def _run_task(self, number: int, task: TaskSpec) -> None:
        assert steps.RUN.do
        self._show(State.RUNNING)
        do = steps.RUN.do
        argument = hosts.RunTask(ref=self.ref, task=number, spec=task, inputs=(*self.spec.inputs, *task.inputs))
        longest = replace(do, timeout_s=task.timeout_s + 300)
        done: hosts.TaskDone = await self._timed(
            "run", perform(longest, argument, self._queue(do.where), summary=task.argv[0])
        )
        if done.error:
            self.error = done.error
            if done.error.kind not in (ErrorKind.NOT_FOUND, ErrorKind.NOT_EXECUTABLE):
                self.end = (outcome.LOSSES.get(done.error.kind, Outcome.ERROR), done.error.message)
        self.results.append(done.result)

    async def _collect(self) -> None:
        assert steps.COLLECT.do
        self._show(State.COLLECTING)
        argument = hosts.Collect(ref=self.ref, outputs=self.spec.outputs)
        collected: hosts.Collected = await self._timed(
            "collect", perform(steps.COLLECT.do, argument, self._queue(Where.HOST), summary="outputs by digest")
        )
        self.notes.outputs = collected.outputs

    async def _back(self, step: Step) -> None:
        assert step.undo
        if self.placed is None:
            # Nobody answered: the reservation is a short lease in the host's own table, and lapses there.
            self.notes.lapsed(step.name, workflow.now())
            return
        while True:
            undone = asyncio.ensure_future(self._undo(step.undo, step.name))
            gone = asyncio.ensure_future(self._until_host_is_gone())
            await workflow.wait([undone, gone], return_when=asyncio.FIRST_COMPLETED)
            if not undone.done():
                undone.cancel()
                await asyncio.gather(undone, return_exceptions=True)
                self.notes.implied(step, self.host_gone_how, workflow.now())
                return
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            try:
                self.notes.add(step.name, undone.result())
                self.host_lost_why = ""  # it answers: from here on its own word counts again
                unproved = self.notes.unproved(step)
            except (ActivityError, ValidationError) as wrong:  # nothing is skipped because one answer cannot be read
                unproved = f"undo {step.name}: {wrong}"
            if not unproved:
                self.finding = ""
                return
            # Never called ended while something may live: it stays ending, and the finding says what.
            self._find(unproved)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: bool(self.host_gone_how or self.host_lost_why),
                    timeout=seconds(5),
                    timeout_summary="look again",
                )

    async def _undo(self, undo: Undo, name: str) -> hosts.Undone | hosts.Sealed:
        answer: hosts.Undone | hosts.Sealed = await compensate(
            undo, self.ref, self._queue(undo.where), summary=f"undo {name}"
        )
        return answer

    async def _until_host_is_gone(self) -> None:
        """Wait until the host is told gone, or is lost and has let every deadline pass: then nothing on it can live."""
        while not self.host_gone_how:
            await workflow.wait_condition(lambda: bool(self.host_lost_why or self.host_gone_how))
            left = (self.last_deadline - workflow.now()).total_seconds() + AFTER_EVERY_DEADLINE_S
            if left <= 0:
                self.host_gone_how = (
                    f"the host does not answer ({self.host_lost_why}), and every deadline of this sandbox there, "
                    f"the last at {self.last_deadline.isoformat(timespec='seconds')}, passed over "
                    f"{AFTER_EVERY_DEADLINE_S} s ago"
                )
            elif not self.host_gone_how:
                self._find(f"{self.host_lost_why}; waiting for the host to answer, to be ended, or for its deadlines")
                with contextlib.suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: bool(self.host_gone_how),
                        timeout=seconds(left),
                        timeout_summary="every deadline of a host that is lost",
                    )

    def _find(self, words: str) -> None:
        if words != self.finding:
            workflow.logger.warning("%s stays ending: %s", self.ref.sandbox_id, words)
            self.finding = words
            self._show(self.state)

    async def _until_told(self) -> None:
        while self.end is None:
            known = self.lease_end
            left = (known - workflow.now()).total_seconds()
            if left <= 0:
                self.end = (Outcome.LEASE_ENDED, "the lease ended")
                return
            try:
                await workflow.wait_condition(
                    lambda known=known: self.end is not None or self.lease_end != known,  # type: ignore[misc]
                    timeout=seconds(left),
                    timeout_summary="lease",
                )
            except TimeoutError:
                continue

    async def _timed(self, name: str, what: Awaitable[T]) -> T:
        before = workflow.time()
        try:
            answer = await what
        except ActivityError:
            self.notes.steps_ms[name] = (workflow.time() - before) * 1e3
            raise
        self.notes.steps_ms[name] = (workflow.time() - before) * 1e3
        return answer
