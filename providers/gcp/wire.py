"""Google's messages and the contract's words: the request that makes a machine, and items from what it lists."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.cloud import compute_v1

from providers.contract import HostOrder, HostState, Item, from_tags
from providers.gcp.ground import GcpGround
from providers.gcp.sizes import Shape

SHORTEST: Final = timedelta(seconds=30)  # Google's limits on max_run_duration
LONGEST: Final = timedelta(days=120)
_IDENTITY: Final = ("paddock-controller", "paddock-environment", "paddock-host", "paddock-attempt")
# A stopped machine still has its disk and nobody ends it: it counts as running, with a why.
_STATES: Final = {
    "PENDING": HostState.PENDING,
    "PROVISIONING": HostState.PENDING,
    "STAGING": HostState.PENDING,
    "PENDING_STOP": HostState.DELETING,
    "STOPPING": HostState.DELETING,
    "DEPROVISIONING": HostState.DELETING,
}
_STOPPED: Final = {"STOPPED", "TERMINATED", "SUSPENDED", "SUSPENDING"}


def instance(order: HostOrder, ground: GcpGround, shape: Shape, now: datetime) -> compute_v1.Instance:
    """The whole machine in one request: nothing of it is left to default to outliving it, or to an address outside."""
    lasts = min(max(order.deadline - now, SHORTEST), LONGEST)
    wanted = compute_v1.Instance(
        name=order.name,
        machine_type=f"zones/{order.zone}/machineTypes/{order.size}",
        labels=order.tags,
        disks=[
            compute_v1.AttachedDisk(
                boot=True,
                auto_delete=True,
                initialize_params=compute_v1.AttachedDiskInitializeParams(
                    disk_name=boot_disk(order.name),
                    disk_size_gb=ground.disk_gib,
                    disk_type=f"zones/{order.zone}/diskTypes/{shape.disk}",
                    source_image=ground.image_path(order.image),
                    labels=order.tags,
                ),
            )
        ],
        network_interfaces=[compute_v1.NetworkInterface(subnetwork=ground.subnetwork(order.zone))],
        scheduling=compute_v1.Scheduling(
            automatic_restart=False,
            on_host_maintenance="TERMINATE",
            provisioning_model="SPOT" if order.spot else "STANDARD",
            instance_termination_action="DELETE",
            max_run_duration=compute_v1.Duration(seconds=int(lasts.total_seconds())),
        ),
    )
    if shape.nic:
        wanted.network_interfaces[0].nic_type = shape.nic
    if shape.nesting:
        wanted.advanced_machine_features = compute_v1.AdvancedMachineFeatures(enable_nested_virtualization=True)
    if shape.min_cpu_platform:
        wanted.min_cpu_platform = shape.min_cpu_platform
    if order.user_data:
        wanted.metadata = compute_v1.Metadata(items=[compute_v1.Items(key="user-data", value=order.user_data)])
    if ground.service_account:
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        wanted.service_accounts = [compute_v1.ServiceAccount(email=ground.service_account, scopes=scopes)]
    return wanted


def boot_disk(machine: str) -> str:
    """The name of a machine's disk, which is not the machine's own: so no two of its things have one id."""
    return f"{machine}-boot"


def is_of(labels: Any, order: HostOrder) -> bool:
    """Whether labels say that a resource was made for this very order."""
    return all(labels.get(key) == order.tags[key] for key in _IDENTITY)


def is_beside(labels: Any, item: Item) -> bool:
    """Whether labels say that a resource belongs to the same attempt as an item, which must be a known one."""
    said = from_tags(labels)
    mine = (item.controller, item.host, item.attempt)
    said_mine = (said["controller"], said["host"], said["attempt"])
    return all(mine) and mine == said_mine and said["environment"] == item.environment


def item_of_instance(found: compute_v1.Instance) -> Item:
    """A machine as Google shows it."""
    why = f"stopped at Google ({found.status})" if found.status in _STOPPED else ""
    return Item(
        id=found.name,
        kind="host",
        name=found.name,
        state=_STATES.get(found.status, HostState.RUNNING),
        zone=last(found.zone),
        size=last(found.machine_type),
        created=when(found.creation_timestamp),
        why=f"{why}: {found.status_message}" if why and found.status_message else why,
        **_said(found.labels),
    )


def item_of_disk(found: compute_v1.Disk) -> Item:
    """A disk; `attached_to` names the machine that uses it."""
    return Item(
        id=found.name,
        kind="disk",
        name=found.name,
        state=HostState.DELETING if found.status == "DELETING" else HostState.RUNNING,
        zone=last(found.zone),
        created=when(found.creation_timestamp),
        attached_to=last(found.users[0]) if found.users else "",
        **_said(found.labels),
    )


def item_of_address(found: compute_v1.Address) -> Item:
    """A reserved address; its zone is a region, or `global`."""
    return Item(
        id=found.name,
        kind="address",
        name=found.name,
        state=HostState.RUNNING,
        zone=last(found.region) or "global",
        created=when(found.creation_timestamp),
        attached_to=last(found.users[0]) if found.users else "",
        **_said(found.labels),
    )


def item_of_order(order: HostOrder, state: HostState, created: datetime | None, why: str = "") -> Item:
    """A machine that was asked for and that Google does not show yet, or not any more."""
    return Item(
        id=order.name,
        kind="host",
        name=order.name,
        state=state,
        zone=order.zone,
        size=order.size,
        created=created,
        why=why,
        **_said(order.tags),
    )


def last(link: str) -> str:
    """The name at the end of a link."""
    return link.rpartition("/")[2]


def when(stamp: str) -> datetime | None:
    """A time of Google's in UTC; None for none."""
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return None


def _said(labels: Any) -> dict[str, Any]:
    return from_tags(dict(labels))
