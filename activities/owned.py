"""What a provider owns as the sweep reads it: ids, names, what tags say and prices; nothing else enters a history."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paddock.contracts.ground import Cost, EndItem, GroundInventory, GroundItem, HostState, Part
from providers.contract import HostOrder, HostSize, Inventory, Item

MACHINE: Final = "host"
# One answer of an activity may have 2 MiB.
MOST_BYTES: Final = 1_500_000
MOST_SCOPES: Final = 20
# A place, or the class or code of an error, and not what a cloud says about it.
_WORD: Final = re.compile(r"[\w./-]{1,63}")


@dataclass(frozen=True, slots=True)
class Ground:
    """Whose ground it is: what an inventory says of itself."""

    environment: str
    provider: str
    controller: str


def inventory(ground: Ground, found: Inventory, sizes: Sequence[HostSize], now: datetime) -> GroundInventory:
    """All that is not gone, each machine with its parts; too much for one answer is cut, and then not complete."""
    living = [item for item in found.items if item.state is not HostState.GONE]
    machines = {item.id: item for item in living if item.kind == MACHINE}
    parts: dict[str, list[Item]] = {}
    alone = []
    for item in living:
        if item.kind != MACHINE and _goes_with(item, machines.get(item.attached_to)):
            parts.setdefault(item.attached_to, []).append(item)
        else:
            alone.append(item)
    alone.sort(key=lambda item: (item.kind != MACHINE, item.id))
    items: list[GroundItem] = []
    missing, size = [_scope(words) for words in found.missing_scopes[:MOST_SCOPES]], 0
    for item in alone:
        one = _item(item, parts.get(item.id, ()) if item.kind == MACHINE else (), sizes, now)
        size += len(one.model_dump_json())
        if size > MOST_BYTES:
            missing.append(f"{len(alone) - len(items)} of {len(alone)} things, too many for one answer")
            break
        items.append(one)
    return GroundInventory(
        environment=ground.environment,
        provider=ground.provider,
        controller=ground.controller,
        items=tuple(items),
        complete=found.complete and len(items) == len(alone),
        missing=tuple(missing),
    )


def _goes_with(item: Item, machine: Item | None) -> bool:
    """Whether a disk, interface or address belongs to the machine that it is attached to, by the tags of both."""
    return machine is not None and _whose(item) == _whose(machine)


def _whose(item: Item) -> tuple[str, str, int]:
    return item.controller, item.host, item.attempt


def _item(item: Item, parts: Iterable[Item], sizes: Sequence[HostSize], now: datetime) -> GroundItem:
    return GroundItem(
        id=item.id,
        kind=item.kind,
        name=item.name,
        state=item.state,
        zone=item.zone,
        controller=item.controller,
        host=item.host,
        attempt=item.attempt,
        size=item.size,
        age_s=age_s(item, now),
        protected=item.protected,
        failed=bool(item.why),
        attached_to=item.attached_to,
        parts=tuple(
            Part(id=one.id, kind=one.kind, name=one.name, zone=one.zone, protected=one.protected) for one in parts
        ),
        cost=_cost(item, sizes) if item.kind == MACHINE else None,
    )


def age_s(item: Item, now: datetime) -> float | None:
    """How old a thing is at least; None: unknown.

    Where its provider does not say, only one whose deadline has passed has an age, since it was made before that. What
    was made in the future by its provider's clock is as young as can be.
    """
    if item.created is not None:
        return max(0.0, (now - item.created).total_seconds())
    if item.deadline is not None and item.deadline < now:
        return (now - item.deadline).total_seconds()
    return None


def _cost(item: Item, sizes: Sequence[HostSize]) -> Cost | None:
    """What the catalogue says of its size where it stands; nothing when it names no price for that place."""
    like = [one for one in sizes if one.name.casefold() == item.size.casefold() and one.price_per_hour is not None]
    here = [one for one in like if item.zone in one.zones] or [one for one in like if not one.zones]
    for one in here:
        assert one.price_per_hour is not None
        return Cost(per_hour=one.price_per_hour, currency=one.currency, as_of=one.as_of)
    return None


def _scope(words: str) -> str:
    """Which scope could not be read, without what the cloud said about it."""
    name, *more = (part.strip() for part in words.split(": "))
    return f"{name[:80]}: {more[0]}" if more and word(more[0]) else name[:80]


def word(said: str) -> str:
    """A provider's own word for something, as the code of an error is; nothing when it is more than a word."""
    return said if _WORD.fullmatch(said) else ""


def order(ask: EndItem, controller: str, deadline: datetime) -> HostOrder:
    """The order that a machine was made by, as far as looking it up needs it."""
    return HostOrder(
        controller=controller,
        environment=ask.environment,
        host=ask.item.host,
        attempt=ask.item.attempt,
        size=ask.item.size,
        zone=ask.item.zone,
        deadline=deadline,
    )


Key = tuple[str, str, str]


def key(what: Item | GroundItem | Part) -> Key:
    """What is one thing at a provider: its id alone may be another's in another zone."""
    return what.kind, what.zone, what.id


def by_key(found: Iterable[Item]) -> dict[Key, Item]:
    """What is there, each thing once, also when a list and a look-up both show it."""
    return {key(item): item for item in found if item.state is not HostState.GONE}


def left(there: Mapping[Key, Item], judged: GroundItem) -> list[Item]:
    """What of a judged thing and its parts is there, the thing itself first."""
    return [there[one] for one in (key(judged), *map(key, judged.parts)) if one in there]


def changed(there: Mapping[Key, Item], judged: GroundItem, controller: str) -> str:
    """Why a thing that was judged is not to be ended any more, by a look just before; empty when nothing changed."""
    for item in left(there, judged):
        if _whose(item) != (controller, judged.host, judged.attempt):
            return f"the tags of {item.id} are not what they were"
        if item.protected:
            return f"{item.id} is protected now"
        if key(item) == key(judged) and item.attached_to != judged.attached_to:
            return f"it is held by {item.attached_to or 'nothing'} now"
    for item in there.values():
        if judged.kind == MACHINE and item.attached_to == judged.id and item.protected:
            return f"{item.id}, which goes with it, is protected now"
    return ""
