"""What Azure answers, as items: a machine with the reason for its failure, and disks, interfaces and addresses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from providers.azure.errors import kind_of
from providers.azure.names import Names, proved_by
from providers.contract import PROTECT_TAG, ErrorClass, HostState, Item, from_tags

CONTROLLER: Final = "paddock-controller"
_FROM_MACHINE: Final = ("controller", "environment", "host", "attempt", "deadline")
_STATES: Final = {
    "creating": HostState.PENDING,
    "updating": HostState.RUNNING,
    "migrating": HostState.RUNNING,
    "succeeded": HostState.RUNNING,
    "deleting": HostState.DELETING,
}
# A guest that shuts down leaves a machine that is paid for.
_STANDING: Final = {"PowerState/stopped", "PowerState/deallocated"}


@dataclass(frozen=True, slots=True)
class Side:
    """A disk, interface or address, as far as an item needs it; `owner` is the machine's id, or empty."""

    kind: str
    name: str
    tags: Mapping[str, str]
    owner: str
    deleting: bool
    zone: str = ""
    created: datetime | None = None


def host(machine: compute.VirtualMachine, names: Names) -> Item:
    """A machine; one that failed, or that stands still and is paid for, is `deleting` with the reason."""
    about = machine.properties or compute.VirtualMachineProperties()
    said = (about.provisioning_state or "").lower()
    why = _why(said, about.instance_view)
    return _item(
        names,
        "host",
        machine.name or "",
        machine.tags or {},
        HostState.DELETING if why else _STATES.get(said, HostState.PENDING),
        zone=_first(machine.zones),
        size=str((about.hardware_profile.vm_size if about.hardware_profile else "") or ""),
        created=_utc(about.time_created),
        why=why,
    )


def _why(said: str, view: compute.VirtualMachineInstanceView | None) -> str:
    """Why it will never be of use; nothing while it may."""
    statuses = (view.statuses if view is not None else None) or []
    if said == "failed":
        for status in statuses:
            parts = (status.code or "").split("/")
            if parts[:2] == ["ProvisioningState", "failed"]:
                code, message = parts[2] if len(parts) > 2 else "", " ".join((status.message or "").split())
                return f"{kind_of(code, message)}: {code or 'failed'}: {message}"
        return f"{ErrorClass.TRANSIENT}: failed: a list does not say why"
    power = {status.code for status in statuses} & _STANDING
    return f"{ErrorClass.TRANSIENT}: {power.pop()}: it was shut down, and is not ended by that" if power else ""


def disk(found: compute.Disk, names: Names) -> Side:
    """A disk; one that a machine holds goes with it."""
    about = found.properties or compute.DiskProperties(creation_data=compute.CreationData(create_option="Empty"))
    return Side(
        kind="disk",
        name=found.name or "",
        tags=found.tags or {},
        owner=names.known("host", found.managed_by),
        deleting=(about.provisioning_state or "").lower() == "deleting",
        zone=_first(found.zones),
        created=_utc(about.time_created),
    )


def nic(found: network.NetworkInterface, names: Names) -> Side:
    """A network interface; one that a machine uses goes with it."""
    about = found.properties or network.NetworkInterfacePropertiesFormat()
    machine = about.virtual_machine.id if about.virtual_machine else None
    deleting = str(about.provisioning_state or "").lower() == "deleting"
    return Side("nic", found.name or "", found.tags or {}, names.known("host", machine), deleting)


def address(found: network.PublicIPAddress, names: Names, nics: Mapping[str, Side]) -> Side:
    """A public address; its machine is the one of the interface that it is bound to."""
    about = found.properties or network.PublicIPAddressPropertiesFormat()
    bound = (about.ip_configuration.id if about.ip_configuration else None) or ""
    through = nics.get(names.known("nic", bound.partition("/ipConfigurations/")[0]))
    deleting = str(about.provisioning_state or "").lower() == "deleting"
    owner = through.owner if through else ""
    return Side("address", found.name or "", found.tags or {}, owner, deleting, _first(found.zones))


def owned_host(machine: compute.VirtualMachine, names: Names, controller: str) -> Item | None:
    """The machine when its tags say that it is this controller's."""
    return host(machine, names) if (machine.tags or {}).get(CONTROLLER) == controller else None


def owned_side(side: Side, names: Names, controller: str, hosts: Mapping[str, Item]) -> Item | None:
    """The side resource when its tags, its machine or its name say that it is this controller's."""
    tags, machine = dict(side.tags), hosts.get(side.owner)
    more: dict[str, Any] = {"zone": side.zone, "created": side.created, "attached_to": side.owner}
    if not tags.get(CONTROLLER):
        if machine is not None:
            protected = machine.protected or tags.get(PROTECT_TAG, "") not in {"", "false"}
            more |= {name: getattr(machine, name) for name in _FROM_MACHINE} | {"protected": protected}
        elif side.kind == "disk":
            tags |= proved_by(side.name, controller)
    if more.get("controller", tags.get(CONTROLLER)) != controller:
        return None
    return _item(names, side.kind, side.name, tags, HostState.DELETING if side.deleting else HostState.RUNNING, **more)


def _item(names: Names, kind: str, name: str, tags: Mapping[str, str], state: HostState, **more: Any) -> Item:
    fields: dict[str, Any] = from_tags(tags) | more
    return Item(id=names.id(kind, name), kind=kind, name=name, state=state, **fields)


def _utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at is not None else None


def _first(zones: Iterable[str] | None) -> str:
    return next(iter(zones or ()), "")
