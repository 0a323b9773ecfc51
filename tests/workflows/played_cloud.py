"""A provider in memory: what it holds, and what it refuses, by script."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from providers.contract import ErrorClass, HostOrder, HostSize, HostState, Inventory, Item, ProviderError


@dataclass
class PlayedCloud:
    """A provider in memory. `refuse` is by size: what `create` raises there; `dead` sizes boot nothing, `fails` do."""

    name: str = "played"
    held: dict[str, Item] = field(default_factory=dict)
    orders: list[HostOrder] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    refuse: dict[str, list[ProviderError]] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    lost_answers: int = 0
    blind: int = 0
    hold: threading.Event | None = None
    on_boot: Callable[[HostOrder], None] = lambda order: None
    on_end: Callable[[str], None] = lambda name: None

    def create(self, order: HostOrder) -> Item:
        self.calls["create"] += 1
        if order.zone == "nowhere":
            raise ProviderError(ErrorClass.INVALID, "zone 'nowhere' is not set up here")
        self.orders.append(order)
        if self.hold:
            self.hold.wait(20)
        if self.refuse.get(order.size):
            raise self.refuse[order.size].pop(0)
        if order.name not in self.held:
            self.held[order.name] = Item(
                id=f"id-{order.name}",
                kind="host",
                name=order.name,
                state=HostState.DELETING if order.size in self.fails else HostState.RUNNING,
                host=order.host,
                attempt=order.attempt,
                controller=order.controller,
                why="its disk could not be made" if order.size in self.fails else "",
            )
            self.held[f"{order.name}-nic"] = replace(
                self.held[order.name], id=f"nic-{order.name}", kind="nic", name=f"{order.name}-nic"
            )
            self.on_boot(order)
        if self.lost_answers:
            self.lost_answers -= 1
            raise ProviderError(ErrorClass.TRANSIENT, "the answer was lost")
        return self.held[order.name]

    def get(self, order: HostOrder) -> Item | None:
        self.calls["get"] += 1
        if order.zone == "nowhere":
            raise ProviderError(ErrorClass.INVALID, "zone 'nowhere' is not set up here")
        return self.held.get(order.name)

    def list_owned(self, controller: str) -> Inventory:
        self.calls["list"] += 1
        if self.blind:
            self.blind -= 1
            return Inventory(items=(), complete=False, missing_scopes=("zone-b",))
        return Inventory(items=tuple(self.held.values()), complete=True)

    def terminate(self, item: Item) -> HostState:
        self.calls["terminate"] += 1
        if self.held.pop(item.name, None) and item.kind == "host":
            self.on_end(item.name)
        return HostState.DELETING

    def catalogue(self) -> Sequence[HostSize]:
        return ()
