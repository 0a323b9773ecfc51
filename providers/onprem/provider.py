"""On-prem machines as a provider: claim one, have its BMC boot it, and free it once it is seen to be off."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from providers.contract import (
    Blame,
    ErrorClass,
    HostOrder,
    HostSize,
    HostState,
    Inventory,
    Item,
    ProviderError,
    from_tags,
)
from providers.onprem.bmc import Bmc
from providers.onprem.boot import BootDirectory
from providers.onprem.claims import Claim, Claims, Stale, State, Wanted
from providers.onprem.inventory import Machine, Site, load
from providers.onprem.life import Pace, Power, Step, judge

_ID = re.compile(r"([a-z][-a-z0-9]{0,62})@([0-9]{1,15})")
_AT_ONCE = 8  # BMCs that are asked at the same time for a list


@dataclass(frozen=True, slots=True)
class OnPremGround:
    """Where the inventory, the claims and the boot directory lie, and how long things may take, in seconds.

    All environment workers of an inventory run on one machine: the claims and their locks are files of its own disk.
    """

    inventory: Path
    claims: Path
    boot: Path
    connect_s: float = 5
    read_s: float = 30
    busy_s: float = 60
    settle_s: float = 60
    boot_s: float = 300


@dataclass(frozen=True, slots=True)
class Count:
    """How many machines of a size there are, and how many of them no order holds."""

    all: int
    free: int


class OnPrem:
    """The provider of an environment whose machines stand in racks of one's own."""

    name = "onprem"

    def __init__(self, ground: OnPremGround, claims: Claims | None = None) -> None:
        self.ground = ground
        self.claims = claims or Claims(ground.claims)
        self._boot = BootDirectory(ground.boot)
        self._pace = Pace(ground.settle_s, ground.boot_s)

    def create(self, order: HostOrder) -> Item:
        """Claim a machine, write what it boots from, turn it on. Free machines that are on already are left alone.

        Raises ProviderError.
        """
        order.check()
        site = load(self.ground.inventory)
        fit = _fitting(site, order)
        strange: list[str] = []
        while True:
            left = [(one.name, one.zone) for one in fit if one.name not in strange]
            try:
                claim = self.claims.claim(left, Wanted.of(order))
            except ProviderError as wrong:
                if wrong.kind is ErrorClass.CAPACITY:
                    raise _none_free(order, len(left), strange, wrong.code) from None
                raise
            with self.claims.acting(claim, self.ground.busy_s) as now:
                machine = _machine(site, now)
                item = self._start(site, machine, now)
            if item is not None:
                return item
            strange.append(claim.machine)

    def get(self, order: HostOrder) -> Item | None:
        """The order's machine as its BMC says it is; an end that waited for this goes on. Raises ProviderError."""
        claim = self.claims.by_token(str(order.token))
        if claim is None:
            return None
        item = self._look(load(self.ground.inventory), claim)
        return None if item.state is HostState.GONE else item

    def list_owned(self, controller: str) -> Inventory:
        """All claims of the controller; one whose BMC does not answer is listed by its claim, and named as missing."""
        try:
            held = [one for one in self.claims.held() if one.wanted.tags.get("paddock-controller") == controller]
        except ProviderError:
            return Inventory((), complete=False, missing_scopes=("claims",))
        try:
            site = load(self.ground.inventory)
        except ProviderError as wrong:
            items = tuple(_item(one, None, _blind(one), str(wrong)) for one in held)
            return Inventory(items, complete=False, missing_scopes=("inventory",))

        def one(claim: Claim) -> tuple[Item, str]:
            try:
                return self._look(site, claim), ""
            except ProviderError as wrong:
                machine = site.machine(claim.machine)
                return _item(claim, machine, _blind(claim), str(wrong)), f"{claim.zone}/{claim.machine}"

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bmc") as pool:
            seen = tuple(pool.map(one, held))
        missing = tuple(scope for _, scope in seen if scope)
        items = tuple(item for item, _ in seen if item.state is not HostState.GONE)
        return Inventory(items, complete=not missing, missing_scopes=missing)

    def terminate(self, item: Item) -> HostState:
        """Off at once, then wiped where the inventory says so, then free; an older claim's machine is never touched.

        Raises ProviderError.
        """
        claim = self._claim(item.id)
        if claim is None:
            return HostState.GONE
        try:
            with self.claims.acting(claim, self.ground.busy_s) as now:
                if now.state is State.CLAIMED:  # its BMC was never asked for anything
                    self._free(now)
                    return HostState.GONE
                site = load(self.ground.inventory)
                machine = _machine(site, now)
                if now.state in {State.POWERING, State.ON}:
                    # Nobody else asks it now, so what was asked was asked before: from here on `off` must settle.
                    asked = now.asked_at if now.seen_on else self.claims.clock()
                    now = self.claims.change(now, state=State.ENDING, asked_at=asked)
                    self._boot.clear(now.machine)
                return self._settle(site, machine, now).state
        except Stale:
            if self._claim(item.id) is not None:
                raise
            return HostState.GONE

    def catalogue(self) -> Sequence[HostSize]:
        """The sizes of the inventory. Raises ProviderError."""
        return load(self.ground.inventory).sizes()

    def counts(self) -> Mapping[str, Count]:
        """How many machines of each size there are. Raises ProviderError."""
        held = {one.machine for one in self.claims.held()}
        machines = load(self.ground.inventory).machines
        return {
            size: Count(
                sum(one.size == size for one in machines),
                sum(one.size == size and one.name not in held for one in machines),
            )
            for size in dict.fromkeys(one.size for one in machines)
        }

    # With the machine's lock

    def _start(self, site: Site, machine: Machine, claim: Claim) -> Item | None:
        """Turn it on, if that is still to be done; None when somebody else uses it, and it is free of our claim."""
        if claim.state not in {State.CLAIMED, State.POWERING}:
            return self._settle(site, machine, claim)
        with self._bmc(site, machine) as bmc:
            look = bmc.look()
            if claim.state is State.CLAIMED and look.power is not Power.OFF:
                self.claims.release(claim, ended=False)
                return None
            if look.power is Power.OFF:
                self._boot.write(machine.name, claim.wanted)
                # Before the request: whoever comes after a crash here knows that the machine may be on by us.
                claim = self.claims.change(claim, state=State.POWERING, asked_at=self.claims.clock())
                bmc.turn_on(site.boot)
                claim = self.claims.change(claim, state=State.ON)
        return _item(claim, machine, HostState.PENDING, claim.why)

    def _settle(self, site: Site, machine: Machine, claim: Claim) -> Item:
        """Look at the machine, write down what that says, and go one step on towards the end that was begun."""
        with self._bmc(site, machine) as bmc:
            now = self.claims.clock()
            wipes = site.wipe == "boot" and claim.asked_at is not None
            verdict = judge(claim, bmc.look(), now, self._pace, wipes)
            claim = self._note(claim, verdict.changes)
            match verdict.step:
                case Step.OFF:
                    bmc.turn_off()
                    self.claims.change(claim, off_at=self.claims.clock())
                case Step.WIPE:
                    self._boot.wipe(machine.name)
                    claim = self._note(claim, {"state": State.WIPING, "seen_on": False, "asked_at": None})
                    bmc.turn_on(site.boot)
                    self.claims.change(claim, asked_at=self.claims.clock())
                case Step.FREE:
                    self._free(claim)
                    return _item(claim, machine, HostState.GONE, verdict.why)
        return _item(claim, machine, verdict.shown, verdict.why)

    def _note(self, claim: Claim, changes: Mapping[str, Any]) -> Claim:
        different = {name: value for name, value in changes.items() if getattr(claim, name) != value}
        return self.claims.change(claim, **different) if different else claim

    def _free(self, claim: Claim) -> None:
        self._boot.clear(claim.machine)
        self.claims.release(claim)

    # Without it

    def _look(self, site: Site, claim: Claim) -> Item:
        """The machine as it is now; while another call is at work on it, as its claim says."""
        machine = _machine(site, claim)
        try:
            with self.claims.acting(claim, 0) as now:
                if now.state is State.CLAIMED:
                    return _item(now, machine, HostState.PENDING, now.why)
                return self._settle(site, machine, now)
        except Stale:
            return _item(claim, machine, HostState.GONE, "")
        except ProviderError as wrong:
            if wrong.code != "busy":
                raise
            return _item(claim, machine, _blind(claim), "another call is at work on it")

    def _claim(self, id_: str) -> Claim | None:
        """The claim that an item names; None when it is over. Raises ProviderError for what never was a claim."""
        said = _ID.fullmatch(id_)
        if said is None:
            raise ProviderError(
                ErrorClass.INVALID, f"{id_[:80]!r} is no machine with a fencing number", code="id", blame=Blame.CALLER
            )
        name, fencing = said[1], int(said[2])
        claim = self.claims.of(name)
        known = claim.fencing if claim else 0
        if fencing > known:
            raise ProviderError(
                ErrorClass.CONFLICT,
                f"{id_}: the claims end at {name}@{known}; were they lost? Look at the machine by hand",
                code="fencing",
                blame=Blame.CALLER,
            )
        return claim if claim and claim.fencing == fencing and claim.state is not State.FREE else None

    @contextmanager
    def _bmc(self, site: Site, machine: Machine) -> Iterator[Bmc]:
        bmc = Bmc(machine, site, self.ground.connect_s, self.ground.read_s)
        try:
            yield bmc
        finally:
            bmc.close()


def _machine(site: Site, claim: Claim) -> Machine:
    machine = site.machine(claim.machine)
    if machine is None:
        raise ProviderError(
            ErrorClass.INVALID,
            f"{claim.machine} is claimed for {claim.wanted.name}, but the inventory lists it no more: put it back",
            code="inventory",
            blame=Blame.CALLER,
        )
    return machine


def _fitting(site: Site, order: HostOrder) -> list[Machine]:
    """The machines of the order's size and zone ("" is any zone). Raises ProviderError with what is known."""
    sizes = [one.name for one in site.sizes()]
    for what, wanted, known in (("size", order.size, sizes), ("zone", order.zone, ["", *site.zones()])):
        if wanted not in known:
            words = f"there is no {what} {wanted[:80]!r} in the inventory; known: {', '.join(filter(None, known))}"
            raise ProviderError(ErrorClass.INVALID, words, code=what, blame=Blame.CALLER)
    fit = [one for one in site.machines if one.size == order.size and order.zone in {"", one.zone}]
    if any(one.kvm == "none" for one in fit):
        words = f"size {order.size} is without KVM by the inventory: no sandbox runs there"
        raise ProviderError(ErrorClass.INVALID, words, code="kvm", blame=Blame.CALLER)
    return fit


def _none_free(order: HostOrder, left: int, strange: list[str], code: str) -> ProviderError:
    place = f" in {order.zone}" if order.zone else ""
    words = f"no machine of size {order.size}{place} is free: {left} claimed"
    if strange:
        words += f", and {', '.join(strange)} on though no order turned them on"
    return ProviderError(ErrorClass.CAPACITY, words, code=code)


def _blind(claim: Claim) -> HostState:
    """What can be said without the BMC: never that it is gone."""
    if claim.state in {State.ENDING, State.WIPING}:
        return HostState.DELETING
    return HostState.RUNNING if claim.seen_on else HostState.PENDING


def _item(claim: Claim, machine: Machine | None, state: HostState, why: str) -> Item:
    tagged = Item(
        id=claim.id,
        kind="host",
        name=claim.wanted.name,
        state=state,
        zone=claim.zone,
        size=claim.wanted.size,
        created=datetime.fromtimestamp(claim.claimed_at, UTC),
        why=why,
        **from_tags(claim.wanted.tags),  # type: ignore[arg-type]
    )
    return replace(tagged, protected=True) if machine and machine.protected else tagged
