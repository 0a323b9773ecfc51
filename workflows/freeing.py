"""How each kind of thing is freed in a sweep, with a last look just before and receipts behind: one row each."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter

    from paddock.contracts import fleet, names
    from paddock.contracts.fleet import Action, CleanupSpec, Kind, Row
    from paddock.contracts.ground import Ended, EndItem
    from paddock.contracts.hosts import SandboxRef, Undone
    from paddock.contracts.report import Gone, Receipt

from workflows import outcome, steps
from workflows.asking import ask, undo
from workflows.decide import Thing, Verdict
from workflows.saga import Step, Where, seconds

LOOK_AGAIN_S = 2.0
MAX_WORDS = 500
GROUND = frozenset({Kind.MACHINE, Kind.DISK, Kind.NIC, Kind.ADDRESS})
Way = Callable[[Verdict, list[Receipt]], Awaitable[Row]]


class Freeing:
    """The ways to free a thing; each fills the receipts as they come, so that a way cut short has shown them."""

    def __init__(self, spec: CleanupSpec) -> None:
        self.spec = spec

    def way(self, thing: Thing) -> Way:
        """How such a thing is freed; a workflow, which is told of its host, is not."""
        if thing.kind in GROUND:
            return self.end
        return {Kind.WORKFLOW: self.tell, Kind.LEFTOVERS: self.forget}.get(thing.kind, self.free)

    async def free(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        """The undos of the workflow's own end, newest first; each is proved before the next one begins."""
        thing, why, environment = verdict.thing, verdict.why, self.spec.environment
        if thing.workflow_id:
            which, summary = self.which(thing), f"does the workflow of {thing.id} run?"
            closer = await ask("look_closely", which, names.CONTROL_QUEUE, fleet.Closer, summary)
            if closer.running:
                return row(thing, Action.SPARED, f"it is not listed, but {closer.words}")
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
            return row(thing, Action.FINDING, f"{why}; freed, but its audit chain does not verify", tuple(receipts))
        return row(thing, Action.FREED, why, tuple(receipts))

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

    async def forget(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        """Output and objects that nobody may ask for."""
        thing = verdict.thing
        forget = fleet.Forget(environment=self.spec.environment, host=thing.host, sandboxes=(thing.id,))
        queue = names.host_control_queue(self.spec.environment, thing.host)
        undone = await ask("forget_leftovers", forget, queue, Undone, f"what {thing.id} left")
        receipts[:] = undone.receipts
        gone = all(one.gone is Gone.PROVED for one in receipts)
        return row(thing, Action.FREED if gone else Action.FAILED, verdict.why, undone.receipts)

    async def tell(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        """A sandbox whose host has no workflow any more."""
        del receipts
        which, summary = self.which(verdict.thing), f"tell {verdict.thing.id} that its host is lost"
        told = await ask("tell_lost", which, names.CONTROL_QUEUE, fleet.Told, summary)
        return row(verdict.thing, Action.TOLD if told.told else Action.SPARED, told.words)

    async def end(self, verdict: Verdict, receipts: list[Receipt]) -> Row:
        """Something of the provider: its host's workflow is asked for, then the thing itself is looked at and ended."""
        thing, environment = verdict.thing, self.spec.environment
        assert thing.item
        summary = f"does the workflow of host {thing.host} run?"
        closer = await ask("look_closely", self.host_of(thing), names.CONTROL_QUEUE, fleet.Closer, summary)
        if closer.running:
            return row(thing, Action.SPARED, f"it is not listed, but {closer.words}")
        end = EndItem(environment=environment, item=thing.item)
        said = await workflow.execute_activity(
            "end_item",
            end,
            task_queue=names.ground_queue(environment),
            schedule_to_start_timeout=seconds(self.spec.host_s),
            start_to_close_timeout=seconds(self.spec.undo_s),
            schedule_to_close_timeout=seconds(self.spec.host_s + self.spec.undo_s),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=seconds(0.5), maximum_interval=seconds(15)),
            summary=f"end the {thing.kind} {thing.item.name or thing.id}",
        )
        ended = TypeAdapter(Ended).validate_python(said)
        if ended.spared:
            return row(thing, Action.SPARED, ended.spared)
        receipts[:] = ended.receipts
        proved = {(one.resource, one.id) for one in receipts if one.gone is Gone.PROVED}
        why = f"{verdict.why}; {closer.words}"
        if lacking := sorted(f"{kind} {name}" for kind, name in {*end.resources} - proved):
            return row(thing, Action.FAILED, f"{why}; no proof for {', '.join(lacking)}", tuple(receipts))
        return row(thing, Action.FREED, why, tuple(receipts))

    def which(self, thing: Thing) -> fleet.Workflow:
        """The workflow of a sandbox."""
        return fleet.Workflow(
            environment=self.spec.environment,
            sandbox_id=thing.id,
            workflow_id=thing.workflow_id,
            run_id=thing.run_id,
            host=thing.host,
        )

    def host_of(self, thing: Thing) -> fleet.Workflow:
        """The workflow of a host, whatever its run."""
        return fleet.Workflow(
            environment=self.spec.environment, sandbox_id="", workflow_id=thing.workflow_id, host=thing.host
        )


def row(thing: Thing, action: Action, why: str, receipts: tuple[Receipt, ...] = ()) -> Row:
    """What the report says of a thing."""
    cost = thing.item.cost if thing.item else None
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
        cost_per_hour=cost.per_hour if cost else None,
        currency=cost.currency if cost else "",
        price_as_of=cost.as_of if cost else None,
    )
