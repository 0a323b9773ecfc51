"""The provider of EC2 machines: one order is one machine, and "not found" is believed only once EC2 has settled."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from providers.aws import items
from providers.aws.client import Clients
from providers.aws.errors import IN_USE, NO_INSTANCE
from providers.aws.ground import AwsGround
from providers.aws.launch import Images, request
from providers.aws.sizes import Sizes
from providers.contract import (
    Blame,
    ErrorClass,
    HostOrder,
    HostSize,
    HostState,
    Inventory,
    Item,
    ProviderError,
)

_LIVING: Final = ["pending", "running", "shutting-down", "stopping", "stopped"]
_PAGE: Final = {"PageSize": 500}
_SOON_S: Final = 2.0
_Answer = Mapping[str, Any]


class Aws:
    """EC2 in the regions of a ground. Calls block, send each request once, and are safe between threads."""

    name = "aws"

    def __init__(self, ground: AwsGround) -> None:
        self.ground = ground
        self._clients = Clients(ground)
        self._sizes = Sizes(self._clients, ground)
        self._images = Images(self._clients)
        self._recent = _Recent(ground.settle_s)

    def __repr__(self) -> str:
        return f"Aws({', '.join(region.name for region in self.ground.regions)})"

    def create(self, order: HostOrder) -> Item:
        """RunInstances with the order's token.

        Neither compares EC2 the zone of two requests with one token, nor does it know a token for ever: so a machine
        of this attempt is looked for first. Raises ProviderError; conflict when it is in another zone or size.
        """
        order.check()
        region = self.ground.to_create(order.zone)
        nested = self._sizes.kvm(region.name, order.size) == "nested"
        there = self._look(region.name, order)
        if there is not None:
            return _same(there, order)
        disks = self._images.disks(region.name, order.image or region.image, self.ground.volume_gib)
        asked = request(order, region, self.ground, disks, nested)
        mine = self._recent.asked(order)
        try:
            answer = self._clients.call(region.name, "run_instances", **asked)
        except ProviderError as error:
            if error.kind is not ErrorClass.TRANSIENT:
                self._recent.refused(order, mine)  # an answer that says no: this request made nothing
            raise
        item = items.host(answer["Instances"][0])
        self._recent.made(order, item)
        return item

    def get(self, order: HostOrder) -> Item | None:
        """The machine with the order's token in any zone of the region.

        While EC2 may not show it yet, what `create` made here is answered as it was then, and after a `create`
        without an answer this raises ProviderError (transient).
        """
        region = self.ground.region_of(order.zone).name
        recent = self._recent.of(order)  # before the look, which may take longer than EC2 needs to settle
        found = self._look(region, order)
        if found is not None or recent is None:
            return found
        if recent.item is not None:
            return recent.item
        message = f"{order.name} may have been made, and EC2 may not show it yet: look again"
        raise ProviderError(ErrorClass.TRANSIENT, message, code="unsettled", retry_after_s=_SOON_S)

    def list_owned(self, controller: str) -> Inventory:
        """Machines but the terminated ones, disks, interfaces and addresses of every region."""
        tagged = {"Name": "tag:paddock-controller", "Values": [controller]}
        living = {"Name": "instance-state-name", "Values": _LIVING}
        found: list[Item] = []
        missing: list[str] = []
        for region in (one.name for one in self.ground.regions):
            for scope, operation, filters, read in (
                ("machines", "describe_instances", [tagged, living], _hosts),
                ("disks", "describe_volumes", [tagged], _disks),
                ("interfaces", "describe_network_interfaces", [tagged], _nics),
                ("addresses", "describe_addresses", [tagged], _addresses(region)),
            ):
                try:
                    found += self._scope(region, operation, filters, read)
                except ProviderError as error:
                    missing.append(f"{scope} of {region}: {error.kind}: {error}")
        return Inventory(tuple(found), complete=not missing, missing_scopes=tuple(missing))

    def terminate(self, item: Item) -> HostState:
        """Ends a machine, or a side resource that no machine holds any more.

        A machine that EC2 does not know yet is an error that is tried again: it may well run. Raises ProviderError.
        """
        region = self.ground.region_of(item.zone).name
        if item.kind == "host":
            return self._terminate_host(region, item)
        operation, argument = _ENDS.get(item.kind, ("", ""))
        if not operation:
            message = f"{item.id} is a {item.kind!r}: {', '.join(('host', *_ENDS))} can be ended"
            raise ProviderError(ErrorClass.INVALID, message, code="kind", blame=Blame.PADDOCK)
        try:
            self._clients.call(region, operation, **{argument: item.id})
        except ProviderError as error:
            # Unlike a machine, it was listed, and only what is not held by a machine is ended by itself.
            if error.code.endswith(".NotFound"):
                return HostState.GONE
            if error.code in IN_USE or "currently in use" in str(error):
                message = f"{item.id} is still held by a machine ({item.attached_to or 'not said which'}): {error}"
                raise ProviderError(ErrorClass.TRANSIENT, message, code=error.code, retry_after_s=_SOON_S) from None
            raise
        return HostState.DELETING

    def catalogue(self) -> Sequence[HostSize]:
        """Sizes with KVM in the configured zones, one entry for each region."""
        return self._sizes.catalogue()

    def _look(self, region: str, order: HostOrder) -> Item | None:
        """The machine of this attempt as EC2 shows it: a living one before an ended one, the order's zone first."""
        wanted = [{"Name": "client-token", "Values": [str(order.token)]}]
        found = self._scope(region, "describe_instances", wanted, _hosts)
        return min(found, key=lambda one: (one.state is HostState.GONE, one.zone != order.zone), default=None)

    def _scope(
        self,
        region: str,
        operation: str,
        filters: Sequence[Mapping[str, object]],
        read: Callable[[_Answer], Iterable[Item]],
    ) -> list[Item]:
        paging = {} if operation == "describe_addresses" else {"PaginationConfig": _PAGE}
        pages = self._clients.pages(region, operation, Filters=filters, **paging)
        return [item for page in pages for item in read(page)]

    def _terminate_host(self, region: str, item: Item) -> HostState:
        unsettled = self._recent.holds(item.id) or _young(item, self.ground.settle_s)
        try:
            answer = self._clients.call(region, "terminate_instances", InstanceIds=[item.id])
        except ProviderError as error:
            if error.code != NO_INSTANCE:
                raise
            if not unsettled:
                return HostState.DELETING  # EC2 forgets a machine an hour after its end; `get` has the last word
            message = f"EC2 does not know {item.id} yet: so soon after its creation it may well run; end it again"
            raise ProviderError(ErrorClass.TRANSIENT, message, code=error.code, retry_after_s=_SOON_S) from None
        self._recent.ended(item.id)
        states = {one["CurrentState"]["Name"] for one in answer["TerminatingInstances"]}
        return HostState.GONE if states == {"terminated"} else HostState.DELETING


_ENDS: Final = {
    "disk": ("delete_volume", "VolumeId"),
    "nic": ("delete_network_interface", "NetworkInterfaceId"),
    "address": ("release_address", "AllocationId"),
}


def _same(there: Item, order: HostOrder) -> Item:
    if (there.zone, there.size) == (order.zone, order.size):
        return there
    message = (
        f"attempt {order.attempt} of host {order.host} is {there.id}, a {there.size} in {there.zone}: "
        f"for a {order.size} in {order.zone}, end that one and order a new attempt"
    )
    raise ProviderError(ErrorClass.CONFLICT, message, code="attempt", blame=Blame.PADDOCK)


def _young(item: Item, settle_s: float) -> bool:
    return item.created is not None and datetime.now(UTC) - item.created < timedelta(seconds=settle_s)


def _hosts(page: _Answer) -> list[Item]:
    return [items.host(one) for reservation in page["Reservations"] for one in reservation["Instances"]]


def _disks(page: _Answer) -> list[Item]:
    return [items.disk(one) for one in page["Volumes"]]


def _nics(page: _Answer) -> list[Item]:
    return [items.nic(one) for one in page["NetworkInterfaces"]]


def _addresses(region: str) -> Callable[[_Answer], list[Item]]:
    return lambda page: [items.address(one, region) for one in page["Addresses"]]


class _Try:
    """One `create`: when, what came of it (None while that is not known), and the one of the same order before it."""

    def __init__(self, item: Item | None, before: "_Try | None" = None) -> None:
        self.at = time.monotonic()
        self.item = item
        self.before = before


class _Recent:
    """What this process created within the time that EC2 needs to show it."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._tries: dict[str, _Try] = {}
        self._lock = threading.Lock()

    def asked(self, order: HostOrder) -> _Try:
        with self._lock:
            now = time.monotonic()
            self._tries = {key: one for key, one in self._tries.items() if now - one.at < self._settle_s}
            before = self._tries.get(str(order.token))
            mine = self._tries[str(order.token)] = _Try(before.item if before else None, before)
            return mine

    def made(self, order: HostOrder, item: Item) -> None:
        with self._lock:
            self._tries[str(order.token)] = _Try(item)

    def refused(self, order: HostOrder, mine: _Try) -> None:
        """As if it was never asked; an earlier request without an answer stays, and one that another thread made."""
        with self._lock:
            if self._tries.get(str(order.token)) is mine:
                del self._tries[str(order.token)]
                if mine.before is not None:
                    self._tries[str(order.token)] = mine.before

    def of(self, order: HostOrder) -> _Try | None:
        with self._lock:
            one = self._tries.get(str(order.token))
        return one if one and time.monotonic() - one.at < self._settle_s else None

    def holds(self, id: str) -> bool:
        with self._lock:
            return any(
                one.item is not None and one.item.id == id and time.monotonic() - one.at < self._settle_s
                for one in self._tries.values()
            )

    def ended(self, id: str) -> None:
        """EC2 took the request to end it, and so knows it."""
        with self._lock:
            self._tries = {key: one for key, one in self._tries.items() if one.item is None or one.item.id != id}
