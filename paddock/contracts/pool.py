"""`HostPool`: how many machines an environment keeps, what it sees, and what it answers."""

from datetime import datetime

from pydantic import Field, model_validator

from paddock.contracts.base import Strict, Wire
from paddock.contracts.ground import Choice, check_lifetime
from paddock.contracts.ids import EnvironmentName


class PoolSize(Strict):
    """How large a pool may be, and how many slots it keeps free for those who come next."""

    minimum: int = Field(0, ge=0, le=10_000, description="Hosts, also when nobody needs them.")
    maximum: int = Field(1, ge=0, le=10_000, description="Hosts, those that are on their way or leaving included.")
    free_slots: int = Field(0, ge=0, le=100_000, description="Slots kept free beyond the demand; 0: scale to zero.")
    idle_s: int = Field(600, ge=1, le=7 * 86_400, description="How long a host must be superfluous before it goes.")
    drain_wait_s: int = Field(3600, ge=0, le=30 * 86_400, description="Then sandboxes of a leaving host are stopped.")

    @model_validator(mode="after")
    def _bounds(self) -> "PoolSize":
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        return self


class PoolHost(Wire):
    """One host as Temporal's index knows it: its state, its slots, and how many sandboxes are on it.

    One that the pool did not have `made` gives capacity and counts, but it is not the pool's to end.
    """

    host: str
    state: str
    slots: int
    used: int = 0
    made: bool = True
    age_s: float = 0.0


class PoolView(Wire):
    """All hosts of an environment, and how many sandboxes wait for one."""

    hosts: tuple[PoolHost, ...] = ()
    waiting: int = 0


class Avoided(Wire):
    """A choice that is left alone until a time, and why."""

    choice: Choice
    until: datetime
    why: str


class Lately(Wire):
    """What the pool did to a host a moment ago, which the index may not show yet."""

    host: str
    state: str
    at: datetime


class PoolMemory(Wire):
    """What a pool remembers from one look to the next.

    `spare_since`: since when at least one host is superfluous, since when two are, and so on.
    """

    avoided: tuple[Avoided, ...] = ()
    lately: tuple[Lately, ...] = ()
    spare_since: tuple[datetime, ...] = ()
    did: str = ""
    finding: str = ""


class PoolSpec(Strict):
    """Argument of `HostPool`: which machines, in the order of preference, and how many.

    `memory` is for a run that goes on as another.
    """

    environment: EnvironmentName
    choices: tuple[Choice, ...] = Field(min_length=1, max_length=64)
    slots: int = Field(8, ge=1, le=4096, description="Slots of one machine.")
    size: PoolSize = PoolSize()
    pool: str = Field("default", pattern=r"^[a-z][-_a-z0-9]{0,62}$")
    boot_s: int = Field(600, ge=5, le=7200)
    prove_s: int = Field(120, ge=5, le=3600)
    lifetime_s: int = Field(86_400, ge=300, le=30 * 86_400, description="Each machine is replaced before its end.")
    avoid_s: int = Field(900, ge=1, le=86_400, description="How long a choice is left alone that failed its proof.")
    capacity_s: int = Field(180, ge=1, le=86_400, description="How long one is left alone that had no capacity.")
    look_s: float = Field(15.0, ge=0.1, le=3600)
    memory: PoolMemory = PoolMemory()

    @model_validator(mode="after")
    def _lasts(self) -> "PoolSpec":
        check_lifetime(self.lifetime_s, self.boot_s, self.prove_s)
        return self


class PoolStatus(Wire):
    """A pool at its last look, and what it did then."""

    environment: str
    size: PoolSize
    hosts: tuple[PoolHost, ...] = ()
    waiting: int = 0
    free: int = 0
    coming: int = 0
    avoided: tuple[Avoided, ...] = ()
    did: str = ""
    finding: str = ""
    looked_at: datetime | None = None
