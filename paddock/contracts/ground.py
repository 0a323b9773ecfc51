"""Ground: what workflows, environment workers and hosts say to each other about machines that are made and ended."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field, model_validator

from paddock.contracts.base import Strict, Wire
from paddock.contracts.ids import EnvironmentName, HostId
from paddock.contracts.report import Receipt


class ErrorClass(StrEnum):
    """Why a provider's call failed: the first two are tried again, capacity elsewhere, the rest by a person."""

    THROTTLED = "throttled"
    TRANSIENT = "transient"
    CAPACITY = "capacity"
    QUOTA = "quota"
    AUTH = "auth"
    INVALID = "invalid"
    CONFLICT = "conflict"


class HostState(StrEnum):
    """Where a machine is at its provider; `deleting` until a look-up says that it is gone."""

    PENDING = "pending"
    RUNNING = "running"
    DELETING = "deleting"
    GONE = "gone"


class Choice(Strict):
    """One way to get a machine; a place that has none left is followed by the next choice."""

    size: str = Field(min_length=1, max_length=63)
    zone: str = Field("", max_length=63)
    image: str = Field("", max_length=255, description="The provider's name of it; empty: the environment's own.")
    spot: bool = False

    def __str__(self) -> str:
        return " ".join(part for part in (self.size, self.zone, self.image, "spot" if self.spot else "") if part)


def check_lifetime(lifetime_s: int, boot_s: int, prove_s: int) -> None:
    """Refuse a machine whose cloud may end it before it serves. Raises ValueError."""
    if lifetime_s <= boot_s + prove_s:
        raise ValueError(f"lifetime_s {lifetime_s} must be more than boot_s {boot_s} and prove_s {prove_s} together")


class Wanted(Strict):
    """A machine to be made: the choices in their order, and how long each part of it may take."""

    pool: str = Field("default", pattern=r"^[a-z][-_a-z0-9]{0,62}$")
    choices: tuple[Choice, ...] = Field(min_length=1, max_length=64)
    boot_s: int = Field(600, ge=5, le=7200, description="From its creation to the host's first word.")
    prove_s: int = Field(120, ge=5, le=3600, description="The host's proof that it runs microVMs.")
    lifetime_s: int = Field(86_400, ge=300, le=30 * 86_400, description="When the cloud ends it by itself, if it can.")

    @model_validator(mode="after")
    def _lasts(self) -> "Wanted":
        check_lifetime(self.lifetime_s, self.boot_s, self.prove_s)
        return self


class Attempt(Wire):
    """One try to have one machine of one host; a new choice is a new attempt."""

    environment: EnvironmentName
    host: HostId
    attempt: int = Field(ge=1)
    choice: Choice
    pool: str
    deadline: datetime
    settle_s: int = Field(0, ge=0, le=3600, description="How long an order may be on its way that nobody answered.")


class Machine(Wire):
    """What the provider says of an attempt's machine; `why` is its reason for one that failed."""

    id: str = ""
    name: str = ""
    state: HostState
    why: str = ""


class Proof(Wire):
    """A host that proved itself: a guest booted in it and answered; how long each part took, in ms."""

    parts_ms: dict[str, float] = Field(default_factory=dict)


class Tried(Wire):
    """An attempt that came to nothing, with why, and all that proves that nothing of it is left."""

    attempt: int
    choice: Choice
    step: str
    kind: str = ""
    why: str
    receipts: tuple[Receipt, ...] = ()


class Grown(Wire):
    """How far a host was made, and since when: its present attempt, and those that came to nothing."""

    since: datetime | None = None
    attempt: int = 0
    choice: Choice | None = None
    tried: tuple[Tried, ...] = ()
    steps_ms: dict[str, float] = Field(default_factory=dict)


class DrainSpec(Strict):
    """How a host is emptied: no new sandboxes; the running ones may end by themselves, or are stopped after a time."""

    reason: str = Field("drained", max_length=1000)
    wait_s: int = Field(3600, ge=0, le=30 * 86_400, description="Then its sandboxes are stopped, with a report.")


class HostReport(Wire):
    """The end of a host: what was tried, how long each step took, and what proves that nothing is billed any more."""

    environment: str
    host: str
    state: str
    why: str = ""
    grown: Grown | None = None
    receipts: tuple[Receipt, ...] = ()


class Cost(Wire):
    """What a machine costs in an hour, by a list of prices of a known day."""

    per_hour: float
    currency: str
    as_of: datetime | None = None


class Part(Wire):
    """A disk, interface or address of a machine: attached to it, tagged alike, and gone with it."""

    id: str
    kind: str
    name: str = ""
    zone: str = ""
    protected: bool = False


class GroundItem(Wire):
    """A machine, or a disk, interface or address that goes with none: its ids and what its tags say, nothing else.

    No age: unknown. `failed`: the provider gave a reason why it is of no use. `attached_to`: the id of what holds it.
    """

    id: str
    kind: str
    name: str = ""
    state: HostState
    zone: str = ""
    controller: str = ""
    host: str = ""
    attempt: int = 0
    size: str = ""
    age_s: float | None = None
    protected: bool = False
    failed: bool = False
    attached_to: str = ""
    parts: tuple[Part, ...] = ()
    cost: Cost | None = None


class GroundInventory(Wire):
    """What an environment's provider holds for its `controller`; not `complete`: absence proves nothing."""

    environment: str
    provider: str
    controller: str = ""
    items: tuple[GroundItem, ...] = ()
    complete: bool
    missing: tuple[str, ...] = ()


class EndItem(Wire):
    """End one thing of the provider with its parts, as they were judged; what changed since is spared."""

    environment: EnvironmentName
    item: GroundItem

    @property
    def resources(self) -> tuple[tuple[str, str], ...]:
        """Kind and name of all that must be proved gone, the thing itself first."""
        own = (self.item.kind, self.item.name or self.item.id)
        return own, *((part.kind, part.name or part.id) for part in self.item.parts)


class Ended(Wire):
    """What proves that a thing and its parts are gone; with `spared`, why nothing was done instead."""

    receipts: tuple[Receipt, ...] = ()
    spared: str = ""
