"""What every source of machines can do, in the words that workflows understand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid5

_NAMESPACE = UUID("8d0b5f0e-6f6c-5a0e-9d6e-70616464636b")


class HostState(StrEnum):
    """Where a machine is in its life; `deleting` until a look-up says that it is gone."""

    PENDING = "pending"
    RUNNING = "running"
    DELETING = "deleting"
    GONE = "gone"


class ErrorClass(StrEnum):
    """Why a call failed: the first two are tried again, capacity and quota elsewhere, the rest by a person."""

    THROTTLED = "throttled"
    TRANSIENT = "transient"
    CAPACITY = "capacity"
    QUOTA = "quota"
    AUTH = "auth"
    INVALID = "invalid"
    CONFLICT = "conflict"


class Blame(StrEnum):
    """Whose turn it is."""

    PROVIDER = "provider"
    CALLER = "caller"
    PADDOCK = "paddock"


class ProviderError(Exception):
    """A refused or failed call; `code` is the provider's own word, `retry_after_s` its advice."""

    def __init__(
        self,
        kind: ErrorClass,
        message: str,
        *,
        code: str = "",
        blame: Blame = Blame.PROVIDER,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.blame = blame
        self.retry_after_s = retry_after_s

    @property
    def again(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind in {ErrorClass.THROTTLED, ErrorClass.TRANSIENT}


@dataclass(frozen=True, slots=True)
class HostOrder:
    """One machine wanted; a new zone or size is a new attempt, after the old one was looked up and ended."""

    controller: str
    environment: str
    host: str
    attempt: int
    size: str
    zone: str
    deadline: datetime

    @property
    def token(self) -> UUID:
        """The same for the same attempt, so that creating twice gives one machine."""
        return uuid5(_NAMESPACE, f"{self.controller}/{self.host}/{self.attempt}")

    @property
    def name(self) -> str:
        """The machine's name at the provider: letters, digits and hyphens that every cloud takes."""
        return f"ph-{self.token.hex[:20]}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class Item:
    """A machine, disk, interface or address at the provider."""

    id: str
    kind: str
    name: str
    state: HostState
    zone: str = ""
    host: str = ""
    attempt: int = 0
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a controller owns. Not `complete`: some scope could not be read, so absence proves nothing."""

    items: tuple[Item, ...]
    complete: bool
    missing_scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostSize:
    """A machine on offer: how it comes to KVM, and a price with the day it was read."""

    name: str
    vcpu: int
    memory_mib: int
    kvm: str
    price_per_hour: float | None = None
    currency: str = ""
    as_of: datetime | None = None


class HostProvider(Protocol):
    """A source of machines. Calls may block: they run in activities, on threads."""

    @property
    def name(self) -> str:
        """`joined`, `onprem`, `aws`, `azure` or `gcp`."""

    def create(self, order: HostOrder) -> Item:
        """Accepted, not booted; twice with one order is one machine. Raises ProviderError."""

    def get(self, order: HostOrder) -> Item | None:
        """The machine by its deterministic name; None only when it surely is not there. Raises ProviderError."""

    def list_owned(self, controller: str) -> Inventory:
        """Everything tagged as this controller's, with whether all scopes could be read."""

    def terminate(self, item: Item) -> HostState:
        """Begins the end, twice does no harm; `deleting` until `get` says gone. Raises ProviderError."""

    def catalogue(self) -> Sequence[HostSize]:
        """What can be ordered."""
