"""How a host comes to its machine: one attempt after the other, each ended before the next, until one proves itself."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import names
    from paddock.contracts.ground import Attempt, Choice, ErrorClass, Grown, HostState, Machine, Tried
    from paddock.contracts.hosts import HostSpec, Undone
    from paddock.contracts.report import Gone, Receipt

import builtins

from workflows import ground
from workflows.saga import Saga, Step, Where, compensate, perform, seconds, uncancelled

# Answers that say that nothing was made.
DEFINITE = frozenset(ErrorClass) - {ErrorClass.TRANSIENT}
# A person must act: another zone or size would be refused for the same reason.
FOR_A_PERSON = frozenset({ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID, ErrorClass.CONFLICT})
NEVER_JOINED = "never-joined"
MACHINE_FAILED = "machine-failed"
NO_PROOF = "no-proof"
STATES = {"create": "creating", "boot": "booting", "prove": "proving"}
ASK_AGAIN_S = 30
# An order whose answer never came may be on its way: for so long, not to be seen proves nothing.
SETTLE_S = 60


class Growth:
    """One host's machine: made by `up`, ended by `down`; `joined` hears of the host's own first word."""

    def __init__(self, spec: HostSpec, show: Callable[[str, str], None]) -> None:
        assert spec.wanted
        grown = spec.grown or Grown()
        self.spec, self.wanted, self._show = spec, spec.wanted, show
        self.since = grown.since or workflow.now()
        self.attempt, self.choice = grown.attempt, grown.choice
        self.tried, self.steps_ms = list(grown.tried), dict(grown.steps_ms)
        self.saga = Saga()
        self._ending: asyncio.Task[list[Receipt]] | None = None
        self._settle_s = SETTLE_S
        if spec.grown:
            self.saga.taken.append(ground.CREATE)
        self.is_joined = False
        self.step = ""

    @property
    def grown(self) -> Grown:
        return Grown(
            since=self.since,
            attempt=self.attempt,
            choice=self.choice,
            tried=tuple(self.tried),
            steps_ms=dict(self.steps_ms),
        )

    def joined(self, spec: HostSpec) -> bool:
        """Whether this is the machine of the present attempt that speaks, and not an earlier one."""
        self.is_joined = self.is_joined or spec.attempt == self.attempt
        return spec.attempt == self.attempt

    async def up(self) -> bool:
        """Whether a machine is there and has proved itself; of every other attempt nothing is left by then."""
        for choice in self.wanted.choices:
            if self.saga.ending:
                return False
            self.attempt, self.choice, self.is_joined = self.attempt + 1, choice, False
            self._ending, self._settle_s = None, SETTLE_S
            try:
                await self.saga.forward(ground.MAKING, self._go)
            except (ActivityError, ApplicationError, ValidationError) as wrong:
                kind, why = _said(wrong, self.step)
                if self.step == "create" and kind in DEFINITE:
                    self._settle_s = 0
            else:
                return not self.saga.ending
            failed = self.step
            receipts = await uncancelled(self.down())
            self.tried.append(
                Tried(
                    attempt=self.attempt,
                    choice=choice,
                    step=failed,
                    kind=kind,
                    why=why[:1000],
                    receipts=tuple(receipts),
                )
            )
            if self.saga.ending:
                return False
            await self._avoid(choice, kind)
            if kind in FOR_A_PERSON:
                return False
        return False

    async def down(self) -> list[Receipt]:
        """End what this attempt may have made, until its provider proves that it is gone; answers the receipts.

        Once begun it goes on, whoever that waits is cancelled, and whoever asks again gets the same answer.
        """
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._down())
        return await asyncio.shield(self._ending)

    async def _down(self) -> list[Receipt]:
        receipts: list[Receipt] = []

        async def back(step: Step) -> None:
            assert step.undo
            while True:
                wrong = ""
                try:
                    undone: Undone = await compensate(
                        step.undo,
                        self._attempt(),
                        names.ground_queue(self.spec.environment),
                        summary=f"undo {step.name}",
                    )
                    proved = {one.resource for one in undone.receipts if one.gone is Gone.PROVED}
                    if lacking := [one for one in step.receipts if one not in proved]:
                        wrong = f"no proof that {', '.join(lacking)} of {self.spec.host} is gone"
                except (ActivityError, ValidationError) as failed:
                    wrong = f"ending {self.spec.host}: {failed.__cause__ or failed}"
                if not wrong:
                    receipts.extend(undone.receipts)
                    return
                self._show("terminating", wrong)
                await workflow.sleep(seconds(ASK_AGAIN_S), summary="look again")

        self._show("terminating", "")
        began = workflow.time()
        await self.saga.backward(back)
        self.steps_ms["terminate"] = (workflow.time() - began) * 1e3
        return receipts

    async def _go(self, step: Step) -> None:
        self.step, began = step.name, workflow.time()
        self._show(STATES[step.name], f"{self.choice}")
        if step is ground.BOOT:
            await self._boot()
        elif step is ground.PROVE:
            assert step.do
            queue = names.host_control_queue(self.spec.environment, self.spec.host)
            do = replace(step.do, timeout_s=self.wanted.prove_s, start_s=self.wanted.prove_s)
            proof = await perform(do, self.spec, queue, summary="boot a guest that proves it")
            self.steps_ms.update({f"prove.{part}": ms for part, ms in proof.parts_ms.items()})
        else:
            assert step.do
            await perform(step.do, self._attempt(), self._ground(step), summary=f"create {self.choice}")
            self._settle_s = 0
        self.steps_ms[step.name] = (workflow.time() - began) * 1e3

    async def _boot(self) -> None:
        assert ground.BOOT.do
        within = seconds(self.wanted.boot_s)
        watch = asyncio.ensure_future(
            perform(ground.BOOT.do, self._attempt(), self._ground(ground.BOOT), summary="until the provider runs it")
        )
        ends = workflow.now() + within
        try:
            await workflow.wait_condition(
                lambda: self.is_joined or watch.done(), timeout=within, timeout_summary="the host's first word"
            )
            if not self.is_joined:
                machine: Machine = watch.result()
                if machine.state is not HostState.RUNNING:
                    raise _failed(machine)
                left = max(ends - workflow.now(), timedelta(seconds=1))
                await workflow.wait_condition(
                    lambda: self.is_joined, timeout=left, timeout_summary="the host's first word"
                )
        except builtins.TimeoutError:
            words = f"the machine runs, but its host did not join within {self.wanted.boot_s} s"
            raise ApplicationError(words, type=NEVER_JOINED) from None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _avoid(self, choice: Choice, kind: str) -> None:
        """Tell the pool what to leave alone for a while, if there is one."""
        pool = workflow.get_external_workflow_handle(names.pool_workflow_id(self.spec.environment))
        try:
            await pool.signal("avoid", args=[choice, kind])
        except FailureError:  # there is none, or a cancel came before the signal was sent
            workflow.logger.info("no pool of %s to tell of %s", self.spec.environment, kind)

    def _attempt(self) -> Attempt:
        assert self.choice
        return Attempt(
            environment=self.spec.environment,
            host=self.spec.host,
            attempt=self.attempt,
            choice=self.choice,
            pool=self.wanted.pool,
            deadline=self.since + seconds(self.wanted.lifetime_s),
            settle_s=self._settle_s,
        )

    def _ground(self, step: Step) -> str:
        assert step.do
        assert step.do.where is Where.GROUND
        return names.ground_queue(self.spec.environment)


def _failed(machine: Machine) -> ApplicationError:
    """A machine that will never run; its provider's reason may begin with the class of its error."""
    words = machine.why or f"the provider says that it is {machine.state.value}"
    known = words.partition(":")[0]
    return ApplicationError(f"the machine failed: {words}", type=known if known in set(ErrorClass) else MACHINE_FAILED)


def _said(wrong: Exception, step: str) -> tuple[str, str]:
    """The kind of a failed attempt, and its words."""
    cause = wrong.cause if isinstance(wrong, ActivityError) else wrong
    if isinstance(cause, ApplicationError):
        kind = cause.type or ""
        return (NO_PROOF if step == "prove" and kind not in set(ErrorClass) else kind), cause.message
    if isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START:
        return (NO_PROOF if step == "prove" else "no-worker"), f"nobody took the step {step} in time"
    return (NO_PROOF if step == "prove" else "timeout"), f"{step}: {cause or wrong}"
