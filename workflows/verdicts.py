"""What a sweep sees, and the words of its decisions: pure, without a rule but those that hold for everything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.fleet import Hold, HostInventory, Kind, OpenSandbox
    from paddock.contracts.ground import GroundInventory, GroundItem

ONCE = "seen once only: the next sweep looks again"


class Act(StrEnum):
    """What shall be done with a thing; `wait`: nothing yet, it must be seen a second time."""

    WAIT = "wait"
    FREE = "free"
    TELL = "tell"
    FIND = "find"
    SPARE = "spare"


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a thing is left alone, and how many sandboxes and machines a person allows to be lost at once."""

    environment: str
    grace_s: float
    allow: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """One look, in the order in which it was taken; None: could not be listed, or not all of it.

    `inventories` lacks the hosts that did not answer; `states` and `elsewhere` came with `hosts`.
    """

    ground: GroundInventory | None
    hosts: tuple[str, ...] | None
    inventories: tuple[HostInventory, ...]
    open: tuple[OpenSandbox, ...] | None
    states: Mapping[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()


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
    item: GroundItem | None = None

    @property
    def key(self) -> str:
        zone = self.item.zone if self.item else ""
        return "\n".join((self.kind, self.host, self.id, self.run_id, zone))

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


def aged(age_s: float | None, rules: Rules) -> str:
    """Why a thing of this age is left alone; empty when it is old enough."""
    if age_s is None:
        return "its age is not known, which counts as young"
    return f"younger than {rules.grace_s:g} s" if age_s < rules.grace_s else ""


def twice(thing: Thing, suspected: frozenset[str], spared: str, act: Act, why: str) -> Verdict:
    """Spared for a reason; else acted upon when it was suspected before, and suspected when it was not."""
    if spared:
        return Verdict(thing, Act.SPARE, spared)
    return Verdict(thing, act, why) if thing.key in suspected else Verdict(thing, Act.WAIT, why)
