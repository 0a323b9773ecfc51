"""What every source of machines can do, in the words that workflows understand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid5

from paddock.contracts.ground import ErrorClass as ErrorClass
from paddock.contracts.ground import HostState as HostState

# The narrowest of the clouds' rules, Google's labels, holds everywhere.
TAG_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
TAG_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
PROTECT_TAG = "paddock-protect"  # with any value but "" or "false": the sweep leaves it alone
# EC2's limit on user data before it is encoded; the others take more.
MAX_USER_DATA = 16_384
_NAMESPACE = UUID("8d0b5f0e-6f6c-5a0e-9d6e-70616464636b")


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
    """One machine wanted; a new zone or size is a new attempt, after the old one was looked up and ended.

    `image` is the provider's own name for an image ("" for the environment's default), `user_data` the cloud-init text
    that says who the machine is, and never a secret; `deadline` is when the cloud itself may end it, where it can.
    """

    controller: str
    environment: str
    host: str
    attempt: int
    size: str
    zone: str
    deadline: datetime
    pool: str = "default"
    image: str = ""
    user_data: str = ""
    spot: bool = False

    @property
    def token(self) -> UUID:
        """The same for the same attempt of the same environment, so that creating twice gives one machine."""
        return uuid5(_NAMESPACE, f"{self.controller}/{self.environment}/{self.host}/{self.attempt}")

    @property
    def name(self) -> str:
        """The machine's name at the provider: letters, digits and hyphens that every cloud takes."""
        return f"ph-{self.token.hex[:20]}-{self.attempt}"

    @property
    def tags(self) -> dict[str, str]:
        """What every resource of this order carries from its first moment."""
        return {
            "paddock-controller": self.controller,
            "paddock-environment": self.environment,
            "paddock-pool": self.pool,
            "paddock-host": self.host,
            "paddock-attempt": str(self.attempt),
            "paddock-deadline": str(int(self.deadline.timestamp())),
        }

    def check(self) -> None:
        """Refuse, before any call, what some cloud would refuse after it. Raises ProviderError (invalid, caller)."""
        for key, value in self.tags.items():
            if not TAG_VALUE.fullmatch(value) or not value:
                raise ProviderError(
                    ErrorClass.INVALID,
                    f"{key} is {value!r}: 1 to 63 lower-case letters, digits, hyphens and underscores are allowed",
                    code="tag",
                    blame=Blame.CALLER,
                )
        size = len(self.user_data.encode())
        if size > MAX_USER_DATA:
            raise ProviderError(
                ErrorClass.INVALID,
                f"user data has {size} bytes, at most {MAX_USER_DATA} are allowed",
                code="user-data",
                blame=Blame.CALLER,
            )


@dataclass(frozen=True, slots=True)
class Item:
    """A machine, disk, interface or address at the provider.

    `kind` is host, disk, nic or address; `id` what the provider calls it, enough with `zone` to end it; `host`,
    `attempt`, `controller`, `environment` and `deadline` come from its tags and are empty where those are missing or
    unreadable; `attached_to` is the id of the machine that it goes with; `why` is the provider's reason for a machine
    that failed.
    """

    id: str
    kind: str
    name: str
    state: HostState
    zone: str = ""
    host: str = ""
    attempt: int = 0
    deadline: datetime | None = None
    controller: str = ""
    size: str = ""
    created: datetime | None = None
    protected: bool = False
    attached_to: str = ""
    why: str = ""
    environment: str = ""


def from_tags(tags: Mapping[str, str]) -> dict[str, object]:
    """The fields of an Item that its tags say; a half-tagged resource keeps them empty, and is never touched."""
    attempt, deadline = tags.get("paddock-attempt", ""), tags.get("paddock-deadline", "")
    return {
        "controller": tags.get("paddock-controller", ""),
        "environment": tags.get("paddock-environment", ""),
        "host": tags.get("paddock-host", ""),
        "attempt": int(attempt) if re.fullmatch(r"[0-9]{1,9}", attempt) else 0,
        "deadline": datetime.fromtimestamp(int(deadline), UTC) if re.fullmatch(r"[0-9]{1,11}", deadline) else None,
        "protected": tags.get(PROTECT_TAG, "") not in {"", "false"},
    }


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a controller owns. Not `complete`: some scope could not be read, so absence proves nothing."""

    items: tuple[Item, ...]
    complete: bool
    missing_scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostSize:
    """A machine on offer: how it comes to KVM (`nested`, `metal`, `proof` or `none`), and a dated price.

    `proof` means that the provider does not say: the host's own proof decides.
    """

    name: str
    vcpu: int
    memory_mib: int
    kvm: str
    price_per_hour: float | None = None
    currency: str = ""
    as_of: datetime | None = None
    zones: tuple[str, ...] = ()


class HostProvider(Protocol):
    """A source of machines. Calls may block: they run in activities, on threads. No SDK retries by itself."""

    @property
    def name(self) -> str:
        """`joined`, `onprem`, `aws`, `azure` or `gcp`."""

    def create(self, order: HostOrder) -> Item:
        """Accepted, not booted; twice with one order is one machine, also when an answer was lost.

        Everything that it makes (machine, disk, interface) carries the order's tags at creation and dies with the
        machine. Raises ProviderError; after one that is not certain (`again`), the machine may exist.
        """

    def get(self, order: HostOrder) -> Item | None:
        """The machine by its deterministic name or token; None only when it surely is not there.

        A machine whose creation failed on the provider's side is answered with state `deleting` and a `why`, or raises
        the ProviderError that says so. Raises ProviderError.
        """

    def list_owned(self, controller: str) -> Inventory:
        """Everything tagged as this controller's in every scope, machines and side resources; never raises for a
        scope that cannot be read but says so in `missing_scopes`."""

    def terminate(self, item: Item) -> HostState:
        """Begins the end, twice does no harm; `deleting` until `get` says gone. Takes side resources too, and a
        machine whose creation failed. Raises ProviderError."""

    def catalogue(self) -> Sequence[HostSize]:
        """What can be ordered. Raises ProviderError."""
