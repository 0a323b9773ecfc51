"""The provider for Azure: machines made once by name, looked up by name, and ended with all that came with them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as compute
from azure.mgmt.network import NetworkManagementClient

from providers.azure import read, sizes
from providers.azure.errors import classify
from providers.azure.ground import AzureGround, check_image, invalid
from providers.azure.machine import describe
from providers.azure.names import Names, is_order, nic_of
from providers.contract import Blame, ErrorClass, HostOrder, HostSize, HostState, Inventory, Item, ProviderError

T = TypeVar("T")
CONNECT_S: Final = 5
READ_S: Final = 60
# What Azure calls a resource that is surely not there; a missing group or subscription has other codes, and an
# unnamed 404 may be any proxy's.
_NOT_FOUND: Final = {"ResourceNotFound", "NotFound"}
# These tags say which order a machine was made for; the deadline may have moved since.
_WHOSE: Final = ("paddock-controller", "paddock-environment", "paddock-host", "paddock-attempt")


class Azure:
    """The machines of one ground; every call is one request that is tried once, and never waits for a boot.

    `create` is a look-up, and a request that Azure refuses if a machine of that name exists: an order never becomes a
    change of a machine. Public addresses are none of ours, and found all the same.
    """

    name = "azure"

    def __init__(self, ground: AzureGround) -> None:
        self.ground = ground
        self._names = Names(ground)
        credential = ground.credential or DefaultAzureCredential()
        options: dict[str, Any] = {
            "credential_scopes": [f"{ground.endpoint.rstrip('/')}/.default"],
            "retry_total": 0,
            "connection_timeout": CONNECT_S,
            "read_timeout": READ_S,
        }
        self._each: dict[str, Any] = {}
        if ground.on_loopback:
            options["use_env_settings"] = False  # no proxy stands between a test and its emulator
            self._each["enforce_https"] = False
        self._compute = ComputeManagementClient(credential, ground.subscription, ground.endpoint, **options)
        self._network = NetworkManagementClient(credential, ground.subscription, ground.endpoint, **options)

    def close(self) -> None:
        """Drop the connections."""
        self._compute.close()
        self._network.close()

    def create(self, order: HostOrder) -> Item:
        """Accepted, not booted; a machine that this order made before is answered as it is. Raises ProviderError."""
        self._check(order)
        found = self._adopt(order)
        if found is not None:
            return found
        try:
            return read.host(self._put(order), self._names)
        except ProviderError as refused:
            if refused.kind is not ErrorClass.CONFLICT:
                raise
            found = self._adopt(order)  # another call for this order came between the look and the request
            if found is not None:
                return found
            words = f"create {order.name}: it exists, and cannot be read yet"
            raise ProviderError(ErrorClass.TRANSIENT, words, code=refused.code) from refused

    def _check(self, order: HostOrder) -> None:
        order.check()
        sizes.find(order.size, self.ground.region, self.ground.zones)
        if order.image:
            check_image(order.image)
        if order.zone not in (self.ground.zones or ("",)):
            allowed = ", ".join(self.ground.zones) or "none, as the environment names none"
            raise invalid(f"zone {order.zone!r} is not the environment's: allowed are {allowed}", "zone")

    def _put(self, order: HostOrder) -> compute.VirtualMachine:
        wanted = describe(order, self.ground)
        return self._call(
            f"create {order.name}",
            lambda: self._compute.virtual_machines.begin_create_or_update(
                self.ground.resource_group,
                order.name,
                wanted,
                etag="*",
                match_condition=MatchConditions.IfMissing,
                polling=False,
                **self._each,
            ).result(),
        )

    def _adopt(self, order: HostOrder) -> Item | None:
        """The machine of the order's name, if it is there and this order's. Raises ProviderError (conflict)."""
        machine = self._find(order.name)
        if machine is None:
            return None
        tags, item = machine.tags or {}, read.host(machine, self._names)
        wrong = [key for key in _WHOSE if tags.get(key) != order.tags[key]]
        wrong += ["size"] if item.size.lower() != order.size.lower() else []
        wrong += ["zone"] if item.zone != order.zone else []
        if wrong:
            raise ProviderError(
                ErrorClass.CONFLICT,
                f"create {order.name}: a machine of this name exists, and was not made by this order: "
                f"{', '.join(wrong)} differ; another size or zone needs another attempt",
                code="name-taken",
                blame=Blame.PADDOCK,
            )
        return item

    def get(self, order: HostOrder) -> Item | None:
        """The machine by its name; a failed one is `deleting`, and says why. Raises ProviderError."""
        machine = self._find(order.name)
        return read.host(machine, self._names) if machine is not None else None

    def _find(self, name: str) -> compute.VirtualMachine | None:
        try:
            return self._call(
                f"look up {name}",
                lambda: self._compute.virtual_machines.get(
                    self.ground.resource_group, name, expand="instanceView", **self._each
                ),
            )
        except ProviderError as missing:
            if missing.code in _NOT_FOUND:
                return None
            raise

    def list_owned(self, controller: str) -> Inventory:
        """All of the resource group that is this controller's. Azure filters nothing: this does, by tags."""
        missing: list[str] = []
        group = f"resource group {self.ground.resource_group}"

        def part(what: str, listing: Callable[[], list[T]]) -> list[T]:
            try:
                return self._call(f"list {what}", listing)
            except ProviderError as failed:
                missing.append(f"{what} of {group}: {failed}")
                return []

        machines = part("machines", self._machines)
        nics, disks = part("interfaces", self._nics), part("disks", self._disks)
        through = {self._names.id("nic", nic.name): nic for nic in nics}
        addresses = part("addresses", lambda: self._addresses(through))
        hosts = {
            item.id: item
            for machine in machines
            if (item := read.owned_host(machine, self._names, controller)) is not None
        }
        sides = [read.owned_side(side, self._names, controller, hosts) for side in (*nics, *disks, *addresses)]
        items = {item.id: item for item in (*hosts.values(), *sides) if item is not None}
        return Inventory(items=tuple(items.values()), complete=not missing, missing_scopes=tuple(missing))

    def _machines(self) -> list[compute.VirtualMachine]:
        return list(self._compute.virtual_machines.list(self.ground.resource_group, **self._each))

    def _disks(self) -> list[read.Side]:
        found = self._compute.disks.list_by_resource_group(self.ground.resource_group, **self._each)
        return [read.disk(disk, self._names) for disk in found]

    def _nics(self) -> list[read.Side]:
        found = self._network.network_interfaces.list(self.ground.resource_group, **self._each)
        return [read.nic(nic, self._names) for nic in found]

    def _addresses(self, nics: dict[str, read.Side]) -> list[read.Side]:
        found = self._network.public_ip_addresses.list(self.ground.resource_group, **self._each)
        return [read.address(address, self._names, nics) for address in found]

    def terminate(self, item: Item) -> HostState:
        """Ends by name, since a listing lags; `gone` once Azure has neither the machine nor what it left behind.

        Raises ProviderError; an interface of a failed machine is promised to it for three minutes, and `transient`.
        """
        name = self._names.name(item)
        if not self._end(item.kind, name):
            return HostState.DELETING
        if item.kind != "host" or not is_order(name):
            return HostState.GONE
        ended = [self._end(kind, left) for kind, left in self._left_by(name)]
        return HostState.GONE if all(ended) else HostState.DELETING

    def _left_by(self, name: str) -> Iterator[tuple[str, str]]:
        """What a machine that is gone may have left; its interface by name first, as it may not be listed yet."""
        yield "nic", nic_of(name)
        for side in (*self._call("list interfaces", self._nics), *self._call("list disks", self._disks)):
            if side.name.startswith(f"{name}-") and side.name != nic_of(name) and not side.owner:
                yield side.kind, side.name

    def _end(self, kind: str, name: str) -> bool:
        """Ask Azure to end it; whether it is not there any more."""
        statuses: list[int] = []
        options = self._each | {
            "polling": False,
            "raw_response_hook": lambda answer: statuses.append(answer.http_response.status_code),
        }
        group = self.ground.resource_group
        begin: dict[str, Callable[[], object]] = {
            "host": lambda: self._compute.virtual_machines.begin_delete(group, name, force_deletion=True, **options),
            "disk": lambda: self._compute.disks.begin_delete(group, name, **options),
            "nic": lambda: self._network.network_interfaces.begin_delete(group, name, **options),
            "address": lambda: self._network.public_ip_addresses.begin_delete(group, name, **options),
        }
        try:
            self._call(f"end {kind} {name}", begin[kind])
        except ProviderError as refused:
            if refused.code in _NOT_FOUND:
                return True
            raise
        return statuses[-1] == 204

    def catalogue(self) -> Sequence[HostSize]:
        """The sizes that may be ordered in the ground's region; `proof` where Azure does not say that they nest."""
        return sizes.catalogue(self.ground.region, self.ground.zones)

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except AzureError as error:
            raise classify(error, doing) from error
        except ValueError as garbled:  # a proxy's page with status 200, where JSON should be
            words = f"{doing}: the answer is not Azure's: {garbled}"
            raise ProviderError(ErrorClass.TRANSIENT, words, code=type(garbled).__name__) from garbled
