"""A provider in memory: what it lists, how long its ends take and what it refuses is what a test says."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from providers.contract import HostOrder, HostSize, HostState, Inventory, Item, ProviderError

CONTROLLER = "ours"
AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
LARGE = HostSize("large", 8, 32768, "nested", 0.4, "USD", AS_OF, ("zone-a",))
PRICES = (LARGE, replace(LARGE, price_per_hour=0.5, zones=("zone-b",)), HostSize("odd", 2, 4096, "none"))


def made(host: str, attempt: int = 1, **change: object) -> Item:
    """A machine of ours that was made by an order an hour ago."""
    order = HostOrder(
        controller=CONTROLLER,
        environment="e",
        host=host,
        attempt=attempt,
        size="large",
        zone="zone-a",
        deadline=datetime.now(UTC) + timedelta(hours=1),
    )
    item = Item(
        id=f"i-{order.name[3:11]}",
        kind="host",
        name=order.name,
        state=HostState.RUNNING,
        zone=order.zone,
        host=host,
        attempt=attempt,
        deadline=order.deadline,
        controller=CONTROLLER,
        size=order.size,
        created=datetime.now(UTC) - timedelta(hours=1),
    )
    return replace(item, **change)  # type: ignore[arg-type]


def side(machine: Item, kind: str = "disk", **change: object) -> Item:
    """A disk, interface or address that is attached to a machine, with its tags."""
    own = {"id": f"{kind}-{machine.id}", "kind": kind, "name": "", "size": "", "attached_to": machine.id}
    return replace(machine, **(own | change))  # type: ignore[arg-type]


@dataclass
class Sky:
    """A machine that is ended takes its attached sides with it, unless they `stay`; `slow` things are never gone."""

    name: str = "played"
    held: list[Item] = field(default_factory=list)
    complete: bool = True
    missing: tuple[str, ...] = ()
    slow: set[str] = field(default_factory=set)
    stay: set[str] = field(default_factory=set)
    refuse: dict[str, list[ProviderError]] = field(default_factory=dict)
    no_prices: ProviderError | None = None
    looks: int = 0
    lookups: int = 0
    unseen: set[str] = field(default_factory=set)  # what lists lack, and a look-up by name finds
    ended: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    before_look: Callable[[int], None] = lambda _: None

    def put(self, *items: Item) -> None:
        self.held += items

    def change(self, id: str, **change: object) -> None:
        self.held = [replace(one, **change) if one.id == id else one for one in self.held]  # type: ignore[arg-type]

    def create(self, order: HostOrder) -> Item:
        raise AssertionError("a sweep creates nothing")

    def get(self, order: HostOrder) -> Item | None:
        self.lookups += 1
        return next((one for one in self.held if one.kind == "host" and one.name == order.name), None)

    def list_owned(self, controller: str) -> Inventory:
        self.calls[controller] += 1
        self.looks += 1
        self.before_look(self.looks)
        items = tuple(one for one in self.held if one.id not in self.unseen)
        return Inventory(items, self.complete, self.missing)

    def terminate(self, item: Item) -> HostState:
        self.ended.append(item.id)
        if self.refuse.get(item.id):
            raise self.refuse[item.id].pop(0)
        if item.id in self.slow:
            self.change(item.id, state=HostState.DELETING)
            return HostState.DELETING
        with_it = [one for one in self.held if one.attached_to == item.id]
        gone = {item.id, *(one.id for one in with_it if one.id not in self.stay)}
        self.held = [replace(one, attached_to="") if one in with_it else one for one in self.held if one.id not in gone]
        return HostState.DELETING

    def catalogue(self) -> Sequence[HostSize]:
        if self.no_prices:
            raise self.no_prices
        return PRICES
