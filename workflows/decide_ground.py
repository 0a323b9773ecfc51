"""What a sweep does with what an environment's provider holds: pure, like all of the decision.

The list of the provider may be incomplete, and still what it shows may be ended: that nobody owns it is said by
Temporal's list, which is whole. What it does not show is never called gone on its word.
"""

import re
from collections.abc import Iterator

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.fleet import Kind
    from paddock.contracts.ground import GroundInventory, GroundItem, HostState
    from paddock.contracts.names import host_workflow_id

from workflows.verdicts import Act, Rules, Sight, Thing, Verdict, aged, twice

HOST_TAG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
KINDS = {"host": Kind.MACHINE, "disk": Kind.DISK, "nic": Kind.NIC, "address": Kind.ADDRESS}
MACHINE = "host"
JOINED = "joined"  # the provider that makes no machines: of its hosts it lists none
LEAST, MOST, PART = 1, 20, 0.2
# A host in these states runs on a machine; before them it may have none yet, and behind them no more.
ON_A_MACHINE = ("ready", "unreachable")
# A made host that nobody can ask: its machine boots, or is being ended. It holds no sandboxes.
SILENT = frozenset({"recorded", "creating", "booting", "terminating", "gone"})


def items(seen: Sight) -> Iterator[GroundItem]:
    """All that the provider lists and that is not gone."""
    return (item for item in (seen.ground.items if seen.ground else ()) if item.state is not HostState.GONE)


def strange(item: GroundItem, ground: GroundInventory, rules: Rules) -> str:
    """Why a thing is not surely ours, and so never touched; empty when its tags say all that is needed."""
    if ground.environment != rules.environment:
        return f"it belongs to environment {ground.environment!r}"
    if item.kind not in KINDS:
        return "it is of a kind that Paddock does not make"
    if not ground.controller or item.controller != ground.controller:
        return "its tags do not say that it is this controller's"
    if not HOST_TAG.fullmatch(item.host) or item.attempt < 1:
        return "its tags say only half: no host and attempt of Paddock's"
    return ""


def count(seen: Sight, rules: Rules) -> tuple[int, int]:
    """How many machines are surely ours, hosts of other environments left out, and how much is not surely ours."""
    if seen.ground is None:
        return 0, 0
    sure = [item for item in items(seen) if not strange(item, seen.ground, rules)]
    others = seen.elsewhere - frozenset(seen.hosts or ())
    mine = sum(item.kind == MACHINE and item.host not in others for item in sure)
    return mine, sum(1 for _ in items(seen)) - len(sure)


def storm(losing: int, known: int, allow: int) -> str:
    """Why a person must decide first, when this many machines would be ended at once; empty for few."""
    limit = max(LEAST, min(MOST, int(known * PART)))
    if losing <= max(limit, allow):
        return ""
    return f"{losing} of {known} known machines would be ended at once, more than {limit}"


def ground(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """Machines, disks, interfaces and addresses whose host's workflow is not open.

    One of an open host is its own workflow's to end, also what an earlier attempt left.
    """
    if seen.ground is None:
        return
    owned = seen.elsewhere | frozenset(seen.hosts or ())
    guarded = {item.attached_to for item in items(seen) if item.protected and item.attached_to}
    for item in items(seen):
        thing = Thing(
            KINDS.get(item.kind, Kind.MACHINE),
            item.id,
            item.host,
            host_workflow_id(rules.environment, item.host) if item.host else "",
            age_s=item.age_s,
            item=item,
        )
        if unsure := strange(item, seen.ground, rules):
            yield Verdict(thing, Act.SPARE, unsure)
        elif seen.hosts is None:
            yield Verdict(thing, Act.SPARE, "without the whole list of open Host workflows nothing is called an orphan")
        elif item.host not in owned:
            spared = _protected(item, guarded) or _busy(item) or aged(item.age_s, rules)
            yield twice(thing, suspected, spared, Act.FREE, _why(item))


def _protected(item: GroundItem, guarded: set[str]) -> str:
    if item.protected:
        return "its tag paddock-protect says so"
    if item.id in guarded or any(part.protected for part in item.parts):
        return "the tag paddock-protect of what goes with it says so"
    return ""


def _busy(item: GroundItem) -> str:
    if item.state is HostState.DELETING and not item.failed:
        return "it is on its way out"
    return f"it is held by {item.attached_to}, which is not surely of the same host" if item.attached_to else ""


def _why(item: GroundItem) -> str:
    words = f"no Host workflow is open for its host {item.host}"
    if item.failed:
        words += "; it failed, or stands still, and is billed"
    kinds = [part.kind for part in item.parts]
    parts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted({*kinds}))
    return f"{words}; with it go {parts}" if parts else words


def hosts(seen: Sight, suspected: frozenset[str], rules: Rules) -> Iterator[Verdict]:
    """Open hosts that run on a machine which is not in the provider's complete list."""
    known = seen.ground
    if known is None or not known.complete or known.provider == JOINED or known.environment != rules.environment:
        return
    there = {item.host for item in items(seen) if item.kind == MACHINE and item.controller == known.controller}
    for host, state in seen.states.items():
        if state in ON_A_MACHINE and host not in there:
            thing = Thing(Kind.HOST, host, host, host_workflow_id(rules.environment, host))
            why = f"its workflow is {state}, but no machine of it is in the whole list of the {known.provider} provider"
            yield twice(thing, suspected, "", Act.FIND, why)
