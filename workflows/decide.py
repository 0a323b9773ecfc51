"""What a sweep does with what it saw: pure, no clock and no I/O, so that every rule is a row of a table in its test."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.fleet import Found, Hold, HostInventory, Kind, OpenSandbox
    from paddock.contracts.hosts import GroundInventory
    from paddock.contracts.ids import sandbox_id
    from paddock.contracts.status import State

OURS = re.compile(r"sb-[0-9a-f]{20}")
LEAST, MOST, PART = 3, 20, 0.2
ONCE = "seen once only: the next sweep looks again"
# Past the step that boots them, and not at the one that undoes it: a host must hold these.
HELD_IN = frozenset({State.READY, State.RUNNING})


class Act(StrEnum):
    """What shall be done with a thing; `wait`: nothing yet, it must be seen a second time."""

    WAIT = "wait"
    FREE = "free"
    TELL = "tell"
    FIND = "find"
    SPARE = "spare"


_LOSING = frozenset({Act.FREE, Act.TELL})


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a thing is left alone, and how many sandboxes a person allows to be lost at once."""

    environment: str
    grace_s: float
    allow: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """One look, in the order in which it was taken; None: could not be listed, or not all of it.

    `inventories` lacks the hosts that did not answer.
    """

    ground: GroundInventory | None
    hosts: tuple[str, ...] | None
    inventories: tuple[HostInventory, ...]
    open: tuple[OpenSandbox, ...] | None


@dataclass(frozen=True, slots=True)
class Thing:
    """Anything that a row of the report is about; two things with one `key` are the same thing, seen twice."""

    kind: Kind
    id: str
    host: str = ""
    workflow_id: str = ""
    run_id: str = ""
    age_s: float | None = None
    holds: tuple[Hold, ...] = ()

    @property
    def key(self) -> str:
        return "\n".join((self.kind, self.host, self.id, self.run_id))

    @property
    def may_live(self) -> bool:
        """Whether something may still run in it: the storm guard counts these."""
        return self.kind is Kind.WORKFLOW or bool({Hold.RECORD, Hold.PROCESSES} & {*self.holds})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with one thing, and why in words."""

    thing: Thing
    act: Act
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All verdicts; `storm` is set when so many sandboxes would be lost that a person must decide."""

    verdicts: tuple[Verdict, ...]
    incomplete: tuple[str, ...]
    known: int
    storm: str = ""

    def of(self, *acts: Act) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.act in acts)

    @property
    def suspects(self) -> frozenset[str]:
        """Keys of what must be seen a second time before anything is done to it."""
        return frozenset(verdict.thing.key for verdict in self.of(Act.WAIT))


def decide(seen: Sight, suspected: frozenset[str], rules: Rules) -> Decision:
    """Judge everything in sight; only what was suspected in an earlier look, too, is acted upon."""
    verdicts = [
        *_sandboxes(seen, suspected, rules),
        *_leftovers(seen, suspected, rules),
        *_workflows(seen, suspected, rules),
        *_others(seen),
    ]
    known = len({one.sandbox_id for one in seen.open or ()} | {found.sandbox_id for _, found in _held(seen)})
    living = sum(verdict.thing.may_live for verdict in verdicts if verdict.act in _LOSING)
    limit = max(LEAST, min(MOST, int(known * PART)))
    storm = ""
    if living > max(limit, rules.allow):
        storm = (
            f"{living} of {known} known sandboxes would be lost at once, more than {limit}: nothing was freed. "
            f"Is this the right Temporal, and is its database whole? If they shall go: "
            f"`paddock fleet cleanup --allow {living}`"
        )
        held_back = "too many at once: a person must decide"
        verdicts = [
            replace(one, act=Act.SPARE, why=f"{one.why}; {held_back}") if one.act in _LOSING else one
            for one in verdicts
        ]
    return Decision(tuple(verdicts), tuple(_incomplete(seen)), known, storm)


def _held(seen: Sight) -> Iterator[tuple[HostInventory, Found]]:
    for inventory in seen.inventories:
        for found in inventory.found:
            if Hold.RECORD in found.holds:
                yield inventory, found


def _incomplete(seen: Sight) -> Iterator[str]:
    if seen.ground is None:
        yield "the environment's provider did not answer"
    elif not seen.ground.complete:
        yield f"the list of the {seen.ground.provider} provider is not complete"
    if seen.hosts is None:
        yield "the open Host workflows could not be listed"
    if seen.open is None:
        yield "the open Sandbox workflows could not be listed"
    answered = {inventory.host for inventory in seen.inventories}
    for host in seen.hosts or ():
        if host not in answered:
            yield f"host {host} did not answer"
    for inventory in seen.inventories:
        for words in inventory.missing:
            yield f"host {inventory.host}: {words}"


def _aged(age_s: float | None, rules: Rules) -> str:
    """Why a thing of this age is left alone; empty when it is old enough."""
    if age_s is None:
        return "its age is not known, which counts as young"
    return f"younger than {rules.grace_s:g} s" if age_s < rules.grace_s else ""


def _sandboxes(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """What hosts hold of sandboxes whose workflow is not open."""
    running = {one.sandbox_id for one in seen.open or ()}
    for inventory in seen.inventories:
        for found in inventory.found:
            if found.sandbox_id in running and not found.foreign:
                continue
            thing = Thing(
                Kind.SANDBOX,
                found.sandbox_id,
                inventory.host,
                found.workflow_id,
                found.run_id,
                found.age_s,
                found.holds,
            )
            spared = _not_ours(found, inventory, rules) or _not_sure(seen, inventory) or _aged(found.age_s, rules)
            if not spared and found.protected:
                spared = "its label paddock-protect says so"
            why = "its workflow is not open" if found.workflow_id else "nothing that is open or recorded owns it"
            yield _twice(thing, suspected, spared, Act.FREE, why)


def _not_ours(found: Found, inventory: HostInventory, rules: Rules) -> str:
    if inventory.environment != rules.environment:
        return f"it belongs to environment {inventory.environment!r}"
    if found.foreign:
        return found.foreign
    if not OURS.fullmatch(found.sandbox_id):
        return "its name is not one that Paddock gives"
    if found.workflow_id and found.run_id and sandbox_id(found.workflow_id, found.run_id) != found.sandbox_id:
        return "its name and the workflow that it names do not fit together"
    return ""


def _not_sure(seen: Sight, inventory: HostInventory) -> str:
    if seen.open is None:
        return "without the whole list of open workflows nothing is called an orphan"
    if inventory.missing:
        return f"the host's own list is not complete: {inventory.missing[0]}"
    return ""


def _twice(thing: Thing, suspected: frozenset[str], spared: str, act: Act, why: str) -> Verdict:
    """Spared for a reason; else acted upon when it was suspected before, and suspected when it was not."""
    if spared:
        return Verdict(thing, Act.SPARE, spared)
    return Verdict(thing, act, why) if thing.key in suspected else Verdict(thing, Act.WAIT, why)


def _leftovers(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """Output and objects that the host itself should have dropped."""
    running = {one.sandbox_id for one in seen.open or ()}
    for inventory in seen.inventories:
        held = {found.sandbox_id for found in inventory.found}
        for left in inventory.left:
            if left.sandbox_id in running | held:
                continue
            thing = Thing(Kind.LEFTOVERS, left.sandbox_id, inventory.host, age_s=left.age_s)
            as_found = Found(sandbox_id=left.sandbox_id)
            spared = _not_ours(as_found, inventory, rules) or _not_sure(seen, inventory) or _aged(left.age_s, rules)
            what = " and ".join(name for name, there in (("output", left.output), ("objects", left.objects)) if there)
            yield _twice(thing, suspected, spared, Act.FREE, f"{what} that nobody may ask for any more")


def _workflows(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """Open workflows with a host that is gone, with a host that does not hold them, or that do not come to an end."""
    if seen.open is None:
        return
    held = {(inventory.host, found.sandbox_id) for inventory, found in _held(seen)}
    whole = {inventory.host for inventory in seen.inventories if not inventory.missing}
    for one in seen.open:
        thing = Thing(Kind.WORKFLOW, one.sandbox_id, one.host, one.workflow_id, one.run_id, one.age_s)
        spared = _aged(one.age_s, rules)
        if one.host and seen.hosts is not None and one.host not in seen.hosts:
            if not spared and (seen.ground is None or not seen.ground.complete):
                spared = "without the whole list of the provider no host is called lost"
            yield _twice(thing, suspected, spared, Act.TELL, f"no Host workflow is open for its host {one.host}")
        elif spared:
            continue
        elif one.state == State.ENDING:
            yield _twice(thing, suspected, "", Act.FIND, "it stays `ending`")
        elif one.state in HELD_IN and one.host in whole and (one.host, one.sandbox_id) not in held:
            yield _twice(thing, suspected, "", Act.FIND, f"its workflow is {one.state}, but its host does not hold it")


def _others(seen: Sight) -> Iterator[Verdict]:
    for item in seen.ground.items if seen.ground else ():
        yield Verdict(Thing(Kind.MACHINE, item), Act.SPARE, "this version ends no machines of a provider")
    for inventory in seen.inventories:
        for template in inventory.templates:
            thing = Thing(Kind.TEMPLATE, template.name, inventory.host, age_s=template.age_s)
            words = f"{template.bytes >> 20} MiB in a cache that other hosts of this machine may use"
            yield Verdict(thing, Act.SPARE, words)
