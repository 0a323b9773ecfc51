"""What every emulated cloud offers to tests, so that one suite serves all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from providers.contract import HostProvider


class Operation(StrEnum):
    """The provider's call on whose main request a fault falls."""

    CREATE = "create"
    GET = "get"
    LIST = "list"
    TERMINATE = "terminate"


class Fault(StrEnum):
    """What goes wrong; `lost` happens, but its answer is a failure, and `late` is not seen by reads for a while."""

    THROTTLED = "throttled"
    TRANSIENT = "transient"
    CAPACITY = "capacity"
    QUOTA = "quota"
    AUTH = "auth"
    LOST = "lost"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance that the emulator booted: all that a real one could learn of itself."""

    id: str
    name: str
    zone: str
    tags: Mapping[str, str]
    user_data: str


@dataclass(frozen=True, slots=True)
class Held:
    """Something that exists in the emulator, from its own state and not through any provider; `kind` as in Item."""

    kind: str
    id: str
    zone: str
    tags: Mapping[str, str]


class Cloud(Protocol):
    """One running emulator, and the real provider that talks to it over loopback."""

    name: str
    provider: HostProvider
    endpoint: str
    zones: tuple[str, ...]
    size: str
    size_without_kvm: str
    # Called, when set, from the emulator's own threads when an instance boots and when it ends (by its id).
    on_boot: Callable[[Machine], None] | None
    on_end: Callable[[str], None] | None

    def fault(self, operation: Operation, fault: Fault, times: int = 1) -> None:
        """The next `times` main requests of this operation fail so."""

    def calls(self) -> Mapping[str, int]:
        """How many requests came, by the API's own operation names."""

    def held(self) -> tuple[Held, ...]:
        """All that exists now and costs money, whoever made it."""

    def plant(self, kind: str, tags: Mapping[str, str]) -> str:
        """A resource that no provider of ours made (kind host, disk or nic), with these tags; its id."""

    def close(self) -> None:
        """End the server; its port is free again."""
