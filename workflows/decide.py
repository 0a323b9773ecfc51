"""What a sweep does with what it saw: pure, no clock and no I/O, so that every rule is a row of a table in its test."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.fleet import Found, Hold, HostInventory, Kind
    from paddock.contracts.ids import sandbox_id
    from paddock.contracts.status import State

from workflows import decide_ground
from workflows.verdicts import ONCE as ONCE
from workflows.verdicts import Act as Act
from workflows.verdicts import Rules as Rules
from workflows.verdicts import Sight as Sight
from workflows.verdicts import Thing as Thing
from workflows.verdicts import Verdict as Verdict
from workflows.verdicts import aged, twice

OURS = re.compile(r"sb-[0-9a-f]{20}")
LEAST, MOST, PART = 3, 20, 0.2
# Past the step that boots them, and not at the one that undoes it: a host must hold these.
HELD_IN = frozenset({State.READY, State.RUNNING})
_LOSING = frozenset({Act.FREE, Act.TELL})


@dataclass(frozen=True, slots=True)
class Decision:
    """All verdicts; `storm` is set when so much would be lost that a person must decide.

    `known` counts sandboxes, `machines` those of the provider that are surely ours, `strange` what is not.
    """

    verdicts: tuple[Verdict, ...]
    incomplete: tuple[str, ...]
    known: int
    storm: str = ""
    machines: int = 0
    strange: int = 0

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
        *decide_ground.hosts(seen, suspected, rules),
        *decide_ground.ground(seen, suspected, rules),
        *_templates(seen),
    ]
    known = len({one.sandbox_id for one in seen.open or ()} | {found.sandbox_id for _, found in _held(seen)})
    machines, strange = decide_ground.count(seen, rules)
    storm = _storm([one.thing for one in verdicts if one.act in _LOSING], known, machines, rules)
    if storm:
        held_back = "too many at once: a person must decide"
        verdicts = [
            replace(one, act=Act.SPARE, why=f"{one.why}; {held_back}") if one.act in _LOSING else one
            for one in verdicts
        ]
    return Decision(tuple(verdicts), tuple(_incomplete(seen)), known, storm, machines, strange)


def _storm(losing: list[Thing], known: int, machines: int, rules: Rules) -> str:
    """What a person must decide before so much is lost at once; empty when it is few."""
    living, ending = sum(thing.may_live for thing in losing), sum(thing.kind is Kind.MACHINE for thing in losing)
    limit = max(LEAST, min(MOST, int(known * PART)))
    words = []
    if living > max(limit, rules.allow):
        words.append(f"{living} of {known} known sandboxes would be lost at once, more than {limit}")
    if many := decide_ground.storm(ending, machines, rules.allow):
        words.append(many)
    if not words:
        return ""
    where = "" if rules.environment == "local" else f" --environment {rules.environment}"
    return (
        f"{', and '.join(words)}: nothing was freed. Is this the right Temporal, and is its database whole? "
        f"If they shall go: `paddock fleet cleanup --allow {max(living, ending)}{where}`"
    )


def is_silent(state: str) -> bool:
    """Whether a host in this state has nobody who could tell what it holds, and holds nothing."""
    return state in decide_ground.SILENT


def _held(seen: Sight) -> Iterator[tuple[HostInventory, Found]]:
    for inventory in seen.inventories:
        for found in inventory.found:
            if Hold.RECORD in found.holds:
                yield inventory, found


def _incomplete(seen: Sight) -> Iterator[str]:
    if seen.ground is None:
        yield "the environment's provider did not answer"
    elif not seen.ground.complete:
        lacks = f": {', '.join(seen.ground.missing)}" if seen.ground.missing else ""
        yield f"the list of the {seen.ground.provider} provider is not complete{lacks}"
    if seen.hosts is None:
        yield "the open Host workflows could not be listed"
    if seen.open is None:
        yield "the open Sandbox workflows could not be listed"
    answered = {inventory.host for inventory in seen.inventories}
    for host in seen.hosts or ():
        if host not in answered and not is_silent(seen.states.get(host, "")):
            yield f"host {host} did not answer"
    for inventory in seen.inventories:
        for words in inventory.missing:
            yield f"host {inventory.host}: {words}"


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
            spared = _not_ours(found, inventory, rules) or _not_sure(seen, inventory) or aged(found.age_s, rules)
            if not spared and found.protected:
                spared = "its label paddock-protect says so"
            why = "its workflow is not open" if found.workflow_id else "nothing that is open or recorded owns it"
            yield twice(thing, suspected, spared, Act.FREE, why)


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
            spared = _not_ours(as_found, inventory, rules) or _not_sure(seen, inventory) or aged(left.age_s, rules)
            what = " and ".join(name for name, there in (("output", left.output), ("objects", left.objects)) if there)
            yield twice(thing, suspected, spared, Act.FREE, f"{what} that nobody may ask for any more")


def _workflows(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """Open workflows with a host that is gone, with a host that does not hold them, or that do not come to an end."""
    if seen.open is None:
        return
    held = {(inventory.host, found.sandbox_id) for inventory, found in _held(seen)}
    whole = {inventory.host for inventory in seen.inventories if not inventory.missing}
    hosts = None if seen.hosts is None else frozenset(seen.hosts)
    for one in seen.open:
        thing = Thing(Kind.WORKFLOW, one.sandbox_id, one.host, one.workflow_id, one.run_id, one.age_s)
        spared = aged(one.age_s, rules)
        if one.host and hosts is not None and one.host not in hosts:
            if not spared and (seen.ground is None or not seen.ground.complete):
                spared = "without the whole list of the provider no host is called lost"
            yield twice(thing, suspected, spared, Act.TELL, f"no Host workflow is open for its host {one.host}")
        elif spared:
            continue
        elif one.state == State.ENDING:
            yield twice(thing, suspected, "", Act.FIND, "it stays `ending`")
        elif one.state in HELD_IN and one.host in whole and (one.host, one.sandbox_id) not in held:
            yield twice(thing, suspected, "", Act.FIND, f"its workflow is {one.state}, but its host does not hold it")


def _templates(seen: Sight) -> Iterator[Verdict]:
    for inventory in seen.inventories:
        for template in inventory.templates:
            thing = Thing(Kind.TEMPLATE, template.name, inventory.host, age_s=template.age_s)
            words = f"{template.bytes >> 20} MiB in a cache that other hosts of this machine may use"
            yield Verdict(thing, Act.SPARE, words)
