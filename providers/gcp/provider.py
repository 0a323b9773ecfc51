"""Machines at Google Cloud: each call is one request of the SDK, without its retries, and names what it proves."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from google.api_core.exceptions import NotFound
from google.cloud import compute_v1
from google.protobuf.json_format import ParseError

from providers.contract import (
    TAG_VALUE,
    Blame,
    ErrorClass,
    HostOrder,
    HostSize,
    HostState,
    Inventory,
    Item,
    ProviderError,
)
from providers.gcp import sizes, wire
from providers.gcp.errors import FAILURES, classify, of_operation
from providers.gcp.ground import Clients, GcpGround
from providers.gcp.story import DONE, Story, read

T = TypeVar("T")
TIMEOUT_S: Final = 30.0
PAGE: Final = 500  # the most that Google gives at once
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class Gcp:
    """The provider of an environment at Google. `clock` gives the time in UTC.

    An item's id is its name, which with its zone (an address: its region) is what Google's API takes. A network
    interface has no life of its own there. Of the failures that only an operation tells, `get` answers with a `why`
    until `terminate` has removed that operation.
    """

    name = "gcp"

    def __init__(self, ground: GcpGround, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ground = ground
        self._clock = clock
        self._clients = Clients(ground)

    def create(self, order: HostOrder) -> Item:
        """Begins a machine. The same order again gives the same operation, or finds the machine by its name."""
        order.check()
        shape = sizes.shape(order.size)
        if order.zone not in self._ground.zones:
            known = ", ".join(self._ground.zones)
            raise _invalid(f"zone {order.zone!r} is none of this environment's: order one of {known}", "zone")
        request = compute_v1.InsertInstanceRequest(
            project=self._ground.project,
            zone=order.zone,
            request_id=str(order.token),
            instance_resource=wire.instance(order, self._ground, shape, self._clock()),
        )
        try:
            operation = _call(self._clients.instances.insert_unary, request)
        except ProviderError as error:
            if error.code != "alreadyExists":
                raise
            return self._adopt(order, error)
        return self._accepted(order, operation)

    def get(self, order: HostOrder) -> Item | None:
        """The machine, or what its zone's operations say of it; None after a 404 that they confirm."""
        found = self._instance(order.zone, order.name)
        if found is not None:
            if not wire.is_of(found.labels, order):
                raise _conflict(f"{order.name} in {order.zone} has not the tags of {order.host}'s attempt", "labels")
            return wire.item_of_instance(found)
        story = self._story(order.zone, order.name)
        if story.failure is not None:
            failure = _for_good(story.failure)
            why = f"{failure.kind}: {failure.code}: {failure}"
            return wire.item_of_order(order, HostState.DELETING, story.began, why)
        if story.state is HostState.GONE:
            return None
        return wire.item_of_order(order, story.state, story.began)

    def list_owned(self, controller: str) -> Inventory:
        """Machines, disks and addresses of the whole project that carry this controller's label."""
        if not controller or not TAG_VALUE.fullmatch(controller):
            raise _invalid(f"controller {controller!r} cannot be the value of a label", "controller")
        items: list[Item] = []
        missing: list[str] = []
        try:
            lists = self._lists()
        except ProviderError as error:  # no credentials: nothing can be read
            return Inventory(items=(), complete=False, missing_scopes=(f"everything: {error}",))
        for field, method, request, item in lists:
            wanted = request(
                project=self._ground.project, filter=f'labels.paddock-controller="{controller}"', max_results=PAGE
            )
            try:
                for page in _pages(method, wanted):
                    found, unread = _of_page(page, field, item)
                    items += (one for one in found if one.controller == controller)
                    missing += unread
            except ProviderError as error:
                missing.append(f"{field}: {error}")
        scopes = tuple(dict.fromkeys(missing))
        return Inventory(items=tuple(items), complete=not scopes, missing_scopes=scopes)

    def terminate(self, item: Item) -> HostState:
        """Begins the end of a machine with its disk, of a disk, or of an address."""
        if not _NAME.fullmatch(item.id) or not _NAME.fullmatch(item.zone):
            raise _invalid(f"{item.kind} {item.id!r} in {item.zone!r} is no name and place of Google's", "name")
        match item.kind:
            case "host":
                return self._end_host(item)
            case "disk":
                return self._end_disk(item)
            case "address":
                return self._end_address(item)
            case _:
                raise _invalid(f"Google has no {item.kind} that could be ended without its machine", "kind")

    def catalogue(self) -> Sequence[HostSize]:
        """The sizes that Paddock knows, for the regions of this environment; no call is made."""
        return sizes.catalogue(self._ground.zones)

    # Creation

    def _accepted(self, order: HostOrder, operation: compute_v1.Operation) -> Item:
        if (zone := wire.last(operation.zone)) != order.zone:
            raise _conflict(f"attempt {order.attempt} of {order.host} was ordered in {zone} before", "zone")
        if failure := of_operation(operation):
            raise _for_good(failure)
        if operation.status != DONE:
            return wire.item_of_order(order, HostState.PENDING, wire.when(operation.insert_time))
        found = self.get(order)
        if found is None:
            raise _conflict(f"attempt {order.attempt} of {order.host} was made and has ended: order a new one", "ended")
        return found

    def _adopt(self, order: HostOrder, refused: ProviderError) -> Item:
        """The machine that has this order's name already, when its labels say that it is this order's."""
        found = self._instance(order.zone, order.name)
        if found is not None and wire.is_of(found.labels, order):
            return wire.item_of_instance(found)
        if found is None and f"instances/{order.name}'" in str(refused):  # named by Google, and not shown: not for long
            words = f"{order.name} exists and cannot be seen yet"
            raise ProviderError(ErrorClass.TRANSIENT, words, code=refused.code) from refused
        raise _conflict(f"a resource that is not this order's has its name: {refused}", refused.code) from refused

    # The end

    def _end_host(self, item: Item) -> HostState:
        request = compute_v1.DeleteInstanceRequest(project=self._ground.project, zone=item.zone, instance=item.id)
        operation = self._delete(self._clients.instances.delete_unary, request, f"instances/{item.id}")
        if operation is not None:
            return HostState.DELETING
        story = self._story(item.zone, item.id)
        match story.state:
            case HostState.DELETING:
                return HostState.DELETING
            case HostState.PENDING:
                words = f"{item.id} is being made and cannot be ended yet"
                raise ProviderError(ErrorClass.TRANSIENT, words, code="notFound")
            case _:
                return self._end_rest(item, story)

    def _end_rest(self, item: Item, story: Story) -> HostState:
        """The boot disk that a failed creation may leave, and then the record of that failure."""
        name = wire.boot_disk(item.id)
        request = compute_v1.GetDiskRequest(project=self._ground.project, zone=item.zone, disk=name)
        disk = _look(self._clients.disks.get, request, f"disks/{name}")
        if disk is not None and wire.is_beside(disk.labels, item):
            self._end_disk(wire.item_of_disk(disk))
            return HostState.DELETING
        for told in story.failed:
            forget = compute_v1.DeleteZoneOperationRequest(project=self._ground.project, zone=item.zone, operation=told)
            _look(_without_answer(self._clients.operations.delete), forget, f"operations/{told}")
        return HostState.GONE

    def _end_disk(self, item: Item) -> HostState:
        request = compute_v1.DeleteDiskRequest(project=self._ground.project, zone=item.zone, disk=item.id)
        ended = self._delete(self._clients.disks.delete_unary, request, f"disks/{item.id}")
        return HostState.GONE if ended is None else HostState.DELETING

    def _end_address(self, item: Item) -> HostState:
        project, what = self._ground.project, f"addresses/{item.id}"
        if item.zone == "global":
            everywhere = compute_v1.DeleteGlobalAddressRequest(project=project, address=item.id)
            ended = self._delete(self._clients.global_addresses.delete_unary, everywhere, what)
        else:
            request = compute_v1.DeleteAddressRequest(project=project, region=item.zone, address=item.id)
            ended = self._delete(self._clients.addresses.delete_unary, request, what)
        return HostState.GONE if ended is None else HostState.DELETING

    @staticmethod
    def _delete(method: Callable[..., compute_v1.Operation], request: object, what: str) -> compute_v1.Operation | None:
        operation = _look(method, request, what)
        if operation is not None and (failure := of_operation(operation)):
            raise failure
        return operation

    # Looking

    def _instance(self, zone: str, name: str) -> compute_v1.Instance | None:
        if not _NAME.fullmatch(zone):
            raise _invalid(f"the order of {name} is for zone {zone!r}, which is no zone of Google's", "zone")
        request = compute_v1.GetInstanceRequest(project=self._ground.project, zone=zone, instance=name)
        return _look(self._clients.instances.get, request, f"instances/{name}")

    def _story(self, zone: str, name: str) -> Story:
        request = compute_v1.ListZoneOperationsRequest(
            project=self._ground.project,
            zone=zone,
            filter=f'targetLink eq ".*/instances/{name}"',
            max_results=PAGE,
        )
        pages = _pages(self._clients.operations.list, request)
        return read([one for page in pages for one in page.items], self._clock())

    def _lists(self) -> tuple[tuple[str, Callable[..., Any], Callable[..., object], Callable[[Any], Item]], ...]:
        clients, api = self._clients, compute_v1
        return (
            ("instances", clients.instances.aggregated_list, api.AggregatedListInstancesRequest, wire.item_of_instance),
            ("disks", clients.disks.aggregated_list, api.AggregatedListDisksRequest, wire.item_of_disk),
            ("addresses", clients.addresses.aggregated_list, api.AggregatedListAddressesRequest, wire.item_of_address),
        )


def _call(method: Callable[..., T], request: object) -> T:
    """One request, once. Raises ProviderError."""
    try:
        return method(request, retry=None, timeout=TIMEOUT_S)
    except FAILURES as error:
        raise classify(error) from error


def _look(method: Callable[..., T], request: object, what: str) -> T | None:
    """One request; None when Google says that this very resource is not there: a 404 may mean zone or project."""
    try:
        return method(request, retry=None, timeout=TIMEOUT_S)
    except NotFound as error:
        if f"/{what}'" in str(error):
            return None
        raise classify(error) from error
    except FAILURES as error:
        raise classify(error) from error


def _pages(method: Callable[..., Any], request: object) -> Iterator[Any]:
    """Each page of a list; every further one is a request too. Raises ProviderError."""
    try:
        yield from _call(method, request).pages
    except FAILURES as error:
        raise classify(error) from error


def _of_page(page: Any, field: str, item: Callable[[Any], Item]) -> tuple[list[Item], list[str]]:
    """What a page of an aggregated list holds, whose scopes may come again on the next, and what it could not read."""
    found: list[Item] = []
    unread = [f"{field}: {scope}" for scope in page.unreachables] + _warned(f"{field}: every scope", page.warning)
    for scope, within in page.items.items():
        found += (item(one) for one in getattr(within, field))
        unread += _warned(f"{field}: {scope}", within.warning)
    return found, unread


def _warned(where: str, warning: Any) -> list[str]:
    return [] if warning.code in {"", "NO_RESULTS_ON_PAGE"} else [f"{where}: {warning.code} {warning.message}".rstrip()]


def _without_answer(method: Callable[..., object]) -> Callable[..., bool]:
    """For a request with an empty answer, which the SDK cannot read."""

    def calling(request: object, **settings: object) -> bool:
        try:
            method(request, **settings)
        except ParseError:
            pass
        return True

    return calling


def _for_good(failure: ProviderError) -> ProviderError:
    """A failed creation stays failed under its token, whatever its reason: only a new attempt helps."""
    if not failure.again:
        return failure
    return ProviderError(ErrorClass.CAPACITY, f"{failure}: order a new attempt", code=failure.code)


def _invalid(words: str, code: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID, words, code=code, blame=Blame.CALLER)


def _conflict(words: str, code: str) -> ProviderError:
    return ProviderError(ErrorClass.CONFLICT, words, code=code, blame=Blame.PADDOCK)
