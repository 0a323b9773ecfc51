"""`FleetCleanup`: what nobody's workflow owns any more is found, seen twice, and freed with receipts."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import fleet, names
    from paddock.contracts.fleet import Action, CleanupProgress, CleanupReport, CleanupSpec, HostInventory, Kind, Row
    from paddock.contracts.ground import GroundInventory
    from paddock.contracts.report import Gone, Receipt

from workflows.asking import ask_or_none
from workflows.decide import ONCE, Act, Decision, Rules, Sight, Thing, Verdict, decide, is_silent
from workflows.freeing import GROUND, MAX_WORDS, Freeing, row
from workflows.saga import seconds

T = TypeVar("T")
AT_ONCE = 8
ASKED_AT_ONCE = 500  # a workflow may wait for 2,000 activities
MAX_ASKED = 20
MAX_A_RUN = 500  # a history holds some fifty thousand events, and freeing a sandbox takes thirty
ENOUGH = "enough for one run: the next sweep goes on"
MAX_SILENT = 3
ORDER = (Action.FAILED, Action.FINDING, Action.FREED, Action.WOULD_FREE, Action.TOLD, Action.SPARED)
SAVING = (Action.FREED, Action.WOULD_FREE)
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
        self.freeing = Freeing(spec)
        self.turns, self.questions = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(ASKED_AT_ONCE)
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
            "list_ground", environment, names.ground_queue(environment), GroundInventory, "what the provider holds"
        )
        listed = await self._try("list_hosts", environment, names.CONTROL_QUEUE, fleet.OpenHosts, "open Host workflows")
        states = listed.states if listed else {}
        asked = [host for host in (listed.hosts if listed else ()) if not is_silent(states.get(host, ""))]
        answers = await asyncio.gather(*(self._inventory(host) for host in asked))
        inventories = tuple(answer for answer in answers if answer)
        self.hosts = len(inventories)
        hosts, elsewhere = (listed.hosts, frozenset(listed.elsewhere)) if listed else (None, frozenset[str]())
        return Sight(ground, hosts, inventories, await self._open(), states, elsewhere)

    async def _inventory(self, host: str) -> HostInventory | None:
        queue = names.host_control_queue(self.spec.environment, host)
        async with self.questions:
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
        todo = tuple(sorted(todo, key=lambda one: one.thing.kind not in GROUND))  # what is billed comes first
        todo, later = todo[:MAX_A_RUN], todo[MAX_A_RUN:]
        rows = [row(one.thing, Action.SPARED, one.why) for one in decision.of(Act.SPARE)]
        rows += [row(one.thing, Action.SPARED, f"{one.why}; {ONCE}") for one in decision.of(Act.WAIT)]
        rows += [row(one.thing, Action.SPARED, f"{one.why}; {ENOUGH}") for one in later]
        asked = [one for one in todo if one.act is Act.FIND and one.thing.kind is not Kind.HOST][:MAX_ASKED]
        self._show("freeing" if not self.spec.dry_run else "counting", of=len(todo))
        rows += await asyncio.gather(*(self._one(verdict, verdict in asked) for verdict in todo))
        return tuple(rows)

    async def _one(self, verdict: Verdict, ask_why: bool) -> Row:
        async with self.turns:
            thing, act = verdict.thing, verdict.act
            if act is Act.FIND and thing.kind is Kind.HOST:
                done = await self._host(verdict)
            elif act is Act.FIND:
                said = await self._finding(thing) if ask_why else ""
                done = row(thing, Action.FINDING, f"{verdict.why}: {said}" if said else verdict.why)
            elif self.spec.dry_run:
                told = "its workflow would be told that its host is lost: " if act is Act.TELL else ""
                done = row(thing, Action.WOULD_FREE, f"{told}{verdict.why}")
            else:
                done = await self._bounded(verdict)
            self._show(done=self.progress_now.done + 1)
            return done

    async def _bounded(self, verdict: Verdict) -> Row:
        """One attempt: what is not over in time is a failure in the report, and the next sweep finds it again."""
        receipts: list[Receipt] = []
        thing, of_ground = verdict.thing, verdict.thing.kind in GROUND
        who, whom = ("\nground", "the provider's worker") if of_ground else (thing.host, "its host")
        if self.silent[who] >= MAX_SILENT:
            return row(thing, Action.FAILED, f"{verdict.why}; {whom} did not answer for {MAX_SILENT} others")
        doing = asyncio.ensure_future(self.freeing.way(thing)(verdict, receipts))
        try:
            await workflow.wait_condition(
                doing.done,
                timeout=seconds(self.spec.undo_s),
                timeout_summary=f"the longest that {thing.id} may take",
            )
            done = doing.result()
            self.silent[who] = 0
            return done
        except ActivityError as wrong:
            untaken = isinstance(wrong.cause, ActivityTimeout) and wrong.cause.type is TimeoutType.SCHEDULE_TO_START
            self.silent[who] = self.silent[who] + 1 if untaken else 0
            why = f"{wrong.activity_type}: {wrong.cause or wrong}"
        except ValidationError as wrong:
            why = f"an answer of {whom} is malformed: {wrong}"
        except TimeoutError:
            self.silent[who] += not (receipts or of_ground)  # a machine may well take longer to end than a sweep waits
            open_ = [f"{one.resource}: {one.checked_by}" for one in receipts if one.gone is Gone.UNPROVED]
            why = f"not freed within {self.spec.undo_s} s" + (f", unproved {'; '.join(open_)}" if open_ else "")
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
        return row(thing, Action.FAILED, f"{verdict.why}; {why}", tuple(receipts))

    async def _host(self, verdict: Verdict) -> Row:
        """A host without a machine in its provider's list: nothing is wrong with one that joined by itself."""
        thing = verdict.thing
        which, summary = self.freeing.host_of(thing), f"was the machine of {thing.id} made by Paddock?"
        made = await self._try("made_machine", which, names.CONTROL_QUEUE, bool, summary)
        if made is False:
            return row(thing, Action.SPARED, f"{verdict.why}; it joined by itself, or has ended meanwhile")
        return row(thing, Action.FINDING, verdict.why)

    async def _finding(self, thing: Thing) -> str:
        summary = f"what holds {thing.id} up"
        return await self._try("ask_finding", self.freeing.which(thing), names.CONTROL_QUEUE, str, summary) or ""

    def _report(self, rows: tuple[Row, ...], decision: Decision) -> CleanupReport:
        counts = {action: sum(one.action is action for one in rows) for action in ORDER}
        ordered = sorted(rows, key=lambda one: (ORDER.index(one.action), one.host, one.id))
        priced = [one for one in rows if one.action in SAVING and one.cost_per_hour is not None]
        saves: dict[str, float] = {}
        for one in priced:
            saves[one.currency] = saves.get(one.currency, 0.0) + (one.cost_per_hour or 0.0)
        report = CleanupReport(
            environment=self.spec.environment,
            dry_run=self.spec.dry_run,
            passes=self.passes,
            hosts=self.hosts,
            known=decision.known,
            machines=decision.machines,
            strange=decision.strange,
            counts={action: count for action, count in counts.items() if count},
            rows=tuple(ordered[: fleet.MAX_ROWS]),
            more=max(0, len(rows) - fleet.MAX_ROWS),
            saves_per_hour={currency: round(sum_, 4) for currency, sum_ in saves.items()},
            price_as_of=min((one.price_as_of for one in priced if one.price_as_of), default=None),
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
            rows |= {"an hour": ", ".join(f"{sum_:.2f} {name}" for name, sum_ in report.saves_per_hour.items())}
            rows |= {"asks": report.asks, "incomplete": "; ".join(report.incomplete)}
        table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
        workflow.set_current_details(f"| | |\n|---|---|\n{table}")
