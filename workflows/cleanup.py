"""`FleetCleanup`: what nobody's workflow owns any more is found, seen twice, and freed with receipts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import fleet, names
    from paddock.contracts.fleet import Action, CleanupProgress, CleanupReport, CleanupSpec, HostInventory, Kind, Row
    from paddock.contracts.hosts import GroundInventory, SandboxRef, Undone
    from paddock.contracts.report import Gone, Receipt

from workflows import outcome, steps
from workflows.asking import ask, ask_or_none, undo
from workflows.decide import ONCE, Act, Decision, Rules, Sight, Thing, Verdict, decide
from workflows.saga import Step, Where, seconds

T = TypeVar("T")
CONTROLLER = "paddock"
AT_ONCE = 8
MAX_ASKED = 20
MAX_A_RUN = 500  # a history holds some fifty thousand events, and freeing a sandbox takes thirty
ENOUGH = "enough for one run: the next sweep goes on"
MAX_SILENT = 3
MAX_WORDS = 500
LOOK_AGAIN_S = 2.0
ORDER = (Action.FAILED, Action.FINDING, Action.FREED, Action.WOULD_FREE, Action.TOLD, Action.SPARED)
ENVIRONMENT_KEY = SearchAttributeKey.for_keyword(names.ENVIRONMENT)


@workflow.defn(name=names.FLEET_CLEANUP, failure_exception_types=[ValidationError])
class FleetCleanup:
    """Ground, hosts, open workflows, in this order; decide; look again later; free, and say what was done and why."""

    @workflow.init
    def __init__(self, spec: CleanupSpec = CleanupSpec()) -> None:
        self.spec, self.began = spec, workflow.time()
        self.rules = Rules(spec.environment, spec.grace_s, spec.allow)
        self.progress_now = CleanupProgress(stage="looking")
        self.passes = self.hosts = 0
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.silent: Counter[str] = Counter()  # things in a row for which a host gave no answer at all

    @workflow.run
    async def run(self, spec: CleanupSpec = CleanupSpec()) -> CleanupReport:
        workflow.upsert_search_attributes([ENVIRONMENT_KEY.value_set(spec.environment)])
        self._show()
        other = await self._try("other_sweep", spec.environment, names.CONTROL_QUEUE, fleet.OtherSweep, "other sweeps")
        if other and other.workflow_id:
            words = f"another sweep is going on, {other.workflow_id}: nothing was looked at"
            return self._report((), Decision((), (words,), 0))
        decision = decide(await self._look(), frozenset(), self.rules)
        if decision.suspects:
            wakes_at = workflow.now() + seconds(spec.between_s)
            self._show("waiting for the second look", suspects=len(decision.suspects), wakes_at=wakes_at)
            await workflow.sleep(seconds(spec.between_s), summary="what is suspect must be seen twice")
            self._show("looking again", suspects=len(decision.suspects))
            decision = decide(await self._look(), decision.suspects, self.rules)
        return self._report(await self._act(decision), decision)

    @workflow.query(description="Where the sweep is: its stage, how much is suspect, and when it looks again")
    def progress(self) -> CleanupProgress:
        return self.progress_now

    async def _look(self) -> Sight:
        """The ground first, the workflows last: what is made meanwhile then has an owner, not the other way round."""
        self.passes += 1
        environment = self.spec.environment
        ground = await self._try(
            "list_ground", CONTROLLER, names.ground_queue(environment), GroundInventory, "what the provider holds"
        )
        listed = await self._try("list_hosts", environment, names.CONTROL_QUEUE, fleet.OpenHosts, "open Host workflows")
        hosts = listed.hosts if listed else None
        answers = await asyncio.gather(*(self._inventory(host) for host in hosts or ()))
        inventories = tuple(answer for answer in answers if answer)
        self.hosts = len(inventories)
        return Sight(ground, hosts, inventories, await self._open())

    async def _inventory(self, host: str) -> HostInventory | None:
        queue = names.host_control_queue(self.spec.environment, host)
        said = await self._try(
            "host_inventory", self.spec.environment, queue, HostInventory, f"what {host} really holds"
        )
        return said if said and said.host == host else None  # nobody speaks for another host

    async def _open(self) -> tuple[fleet.OpenSandbox, ...] | None:
        found: list[fleet.OpenSandbox] = []
        page_of = fleet.ListSandboxes(environment=self.spec.environment)
        while True:
            page = await self._try(
                "list_sandboxes", page_of, names.CONTROL_QUEUE, fleet.OpenSandboxes, "open Sandbox workflows"
            )
            if page is None:
                return None
            found += page.open
            if not page.page:
                return tuple(found)
            page_of = page_of.model_copy(update={"page": page.page})

    async def _try(self, name: str, argument: object, queue: str, answer: type[T], summary: str) -> T | None:
        return await ask_or_none(name, argument, queue, answer, summary, self.spec.host_s)

    async def _act(self, decision: Decision) -> tuple[Row, ...]:
        todo = decision.of(Act.FREE, Act.TELL, Act.FIND)
        todo, later = todo[:MAX_A_RUN], todo[MAX_A_RUN:]
        rows = [_row(one.thing, Action.SPARED, one.why) for one in decision.of(Act.SPARE)]
        rows += [_row(one.thing, Action.SPARED, f"{one.why}; {ONCE}") for one in decision.of(Act.WAIT)]
        rows += [_row(one.thing, Action.SPARED, f"{one.why}; {ENOUGH}") for one in later]
        asked = [one for one in todo if one.act is Act.FIND][:MAX_ASKED]
        self._show("freeing" if not self.spec.dry_run else "counting", of=len(todo))
        rows += await asyncio.gather(*(self._one(verdict, verdict in asked) for verdict in todo))
        return tuple(rows)

    async def _one(self, verdict: Verdict, ask_why: bool) -> Row:
        async with self.turns:
            thing, act = verdict.thing, verdict.act
            if act is Act.FIND:
                said = await self._finding(thing) if ask_why else ""
                row = _row(thing, Action.FINDING, f"{verdict.why}: {said}" if said else verdict.why)
            elif self.spec.dry_run:
                told = "its workflow would be told that its host is lost: " if act is Act.TELL else ""
                row = _row(thing, Action.WOULD_FREE, f"{told}{verdict.why}")
            elif act is Act.TELL:
                row = await self._bounded(verdict, self._tell)
            elif thing.kind is Kind.LEFTOVERS:
                row = await self._bounded(verdict, self._forget)
            else:
                row = await self._bounded(verdict, self._free)
            self._show(done=self.progress_now.done + 1)
            return row

    async def _bounded(self, verdict: Verdict, do: Callable[[Verdict, list[Receipt]], Awaitable[Row]]) -> Row:
        """One attempt: what is not over in time is a failure in the report, and the next sweep finds it again."""
        receipts: list[Receipt] = []
        if self.silent[verdict.thing.host] >= MAX_SILENT:
            return _row(verdict.thing, Action.FAILED, f"{verdict.why}; its host did not answer for {MAX_SILENT} others")
        doing = asyncio.ensure_future(do(verdict, receipts))
        try:
            await workflow.wait_condition(
                doing.done,
                timeout=seconds(self.spec.undo_s),
                timeout_summary=f"the longest that {verdict.thing.id} may take",
            )
            self.silent[verdict.thing.host] = 0
            return doing.result()
        except ActivityError as wrong:
            why = f"{wrong.activity_type}: {wrong.cause or wrong}"
        except ValidationError as wrong:
            why = f"an answer of the host is malformed: {wrong}"
        except TimeoutError:
            self.silent[verdict.thing.host] += not receipts
            open_ = [f"{one.resource}: {one.checked_by}" for one in receipts if one.gone is Gone.UNPROVED]
            why = f"not freed within {self.spec.undo_s} s" + (f", unproved {'; '.join(open_)}" if open_ else "")
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
        return _row(verdict.thing, Action.FAILED, f"{verdict.why}; {why}", tuple(receipts))

    async def _free(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        """The undos of the workflow's own end, newest first; each is proved before the next one begins."""
        thing, why, environment = verdict.thing, verdict.why, self.spec.environment
        if thing.workflow_id:
            which, summary = self._which(thing), f"does the workflow of {thing.id} run?"
            closer = await ask("look_closely", which, names.CONTROL_QUEUE, fleet.Closer, summary)
            if closer.running:
                return _row(thing, Action.SPARED, f"it is not listed, but {closer.words}")
            why = closer.words
        ref = SandboxRef(
            sandbox_id=thing.id,
            workflow_id=thing.workflow_id,
            run_id=thing.run_id,
            environment=environment,
            host=thing.host,
        )
        notes = outcome.Notes()
        for step in reversed(steps.BEFORE_THE_TASK):
            await self._undo(step, ref, notes, receipts)
        if notes.audit.events and not notes.audit.verified:
            return _row(thing, Action.FINDING, f"{why}; freed, but its audit chain does not verify", tuple(receipts))
        return _row(thing, Action.FREED, why, tuple(receipts))

    async def _undo(self, step: Step, ref: SandboxRef, notes: outcome.Notes, receipts: list[Receipt]) -> None:
        assert step.undo
        pick = names.host_control_queue if step.undo.where is Where.HOST_CONTROL else names.host_queue
        while True:
            queue = pick(ref.environment, ref.host)
            answer = await undo(step.undo, ref, queue, f"undo {step.name} of {ref.sandbox_id}")
            notes.add(step.name, answer)
            receipts[:] = notes.receipts.values()
            if not notes.unproved(step):
                return
            await workflow.sleep(seconds(LOOK_AGAIN_S), summary="look again")

    async def _forget(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        thing = verdict.thing
        forget = fleet.Forget(environment=self.spec.environment, host=thing.host, sandboxes=(thing.id,))
        queue = names.host_control_queue(self.spec.environment, thing.host)
        undone = await ask("forget_leftovers", forget, queue, Undone, f"what {thing.id} left")
        receipts[:] = undone.receipts
        gone = all(one.gone is Gone.PROVED for one in receipts)
        return _row(thing, Action.FREED if gone else Action.FAILED, verdict.why, undone.receipts)

    async def _tell(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        del receipts
        which, summary = self._which(verdict.thing), f"tell {verdict.thing.id} that its host is lost"
        told = await ask("tell_lost", which, names.CONTROL_QUEUE, fleet.Told, summary)
        return _row(verdict.thing, Action.TOLD if told.told else Action.SPARED, told.words)

    async def _finding(self, thing: Thing) -> str:
        summary = f"what holds {thing.id} up"
        return await self._try("ask_finding", self._which(thing), names.CONTROL_QUEUE, str, summary) or ""

    def _which(self, thing: Thing) -> fleet.Workflow:
        return fleet.Workflow(
            environment=self.spec.environment,
            sandbox_id=thing.id,
            workflow_id=thing.workflow_id,
            run_id=thing.run_id,
            host=thing.host,
        )

    def _report(self, rows: tuple[Row, ...], decision: Decision) -> CleanupReport:
        counts = {action: sum(row.action is action for row in rows) for action in ORDER}
        ordered = sorted(rows, key=lambda row: (ORDER.index(row.action), row.host, row.id))
        report = CleanupReport(
            environment=self.spec.environment,
            dry_run=self.spec.dry_run,
            passes=self.passes,
            hosts=self.hosts,
            known=decision.known,
            counts={action: count for action, count in counts.items() if count},
            rows=tuple(ordered[: fleet.MAX_ROWS]),
            more=max(0, len(rows) - fleet.MAX_ROWS),
            asks=decision.storm,
            incomplete=tuple(words[:MAX_WORDS] for words in decision.incomplete[:MAX_ASKED]),
            took_s=round(workflow.time() - self.began, 3),
        )
        self._show("done", report=report)
        return report

    def _show(
        self,
        stage: str = "",
        *,
        suspects: int | None = None,
        wakes_at: datetime | None = None,
        done: int | None = None,
        of: int | None = None,
        report: CleanupReport | None = None,
    ) -> None:
        before = self.progress_now
        self.progress_now = now = CleanupProgress(
            stage=stage or before.stage,
            suspects=before.suspects if suspects is None else suspects,
            wakes_at=wakes_at,
            done=before.done if done is None else done,
            of=before.of if of is None else of,
        )
        rows = {
            "environment": f"`{self.spec.environment}`" + (" (dry run)" if self.spec.dry_run else ""),
            "stage": f"**{now.stage}**",
            "suspect": str(now.suspects),
            "looks again": wakes_at.isoformat(timespec="seconds") if wakes_at else "",
            "done": f"{now.done} of {now.of}" if now.of else "",
        }
        if report:
            rows |= {action.value: str(count) for action, count in report.counts.items()}
            rows |= {"asks": report.asks, "incomplete": "; ".join(report.incomplete)}
        table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
        workflow.set_current_details(f"| | |\n|---|---|\n{table}")


def _row(thing: Thing, action: Action, why: str, receipts: tuple[Receipt, ...] = ()) -> Row:
    return Row(
        kind=thing.kind,
        id=thing.id,
        host=thing.host,
        action=action,
        why=why[:MAX_WORDS],
        workflow_id=thing.workflow_id,
        age_s=thing.age_s,
        holds=thing.holds,
        receipts=receipts,
    )
