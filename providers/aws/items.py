"""What EC2 answers, as the contract's items; an address's zone is its region, since it has none."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from providers.contract import HostState, Item, from_tags

_Answer = Mapping[str, Any]
_ENDED_BY_US: Final = "Client.UserInitiatedShutdown"
_HOSTS: Final = {
    "pending": HostState.PENDING,
    "running": HostState.RUNNING,
    "shutting-down": HostState.DELETING,
    "terminated": HostState.GONE,
    # Nothing of ours stops a machine: it will not run again, and its disk costs money until it is ended.
    "stopping": HostState.DELETING,
    "stopped": HostState.DELETING,
}
_SIDES: Final = {
    "creating": HostState.PENDING,
    "pending": HostState.PENDING,
    "attaching": HostState.PENDING,
    "detaching": HostState.RUNNING,
    "deleting": HostState.DELETING,
    "deleted": HostState.GONE,
}


def host(instance: _Answer) -> Item:
    """A machine."""
    tags, state = _tags(instance.get("Tags")), str(instance.get("State", {}).get("Name", "pending"))
    return _item(
        tags,
        id=str(instance["InstanceId"]),
        kind="host",
        name=tags.get("Name", ""),
        state=_HOSTS.get(state, HostState.PENDING),
        zone=str(instance.get("Placement", {}).get("AvailabilityZone", "")),
        size=str(instance.get("InstanceType", "")),
        created=_moment(instance.get("LaunchTime")),
        why=_why(instance, state),
    )


def disk(volume: _Answer) -> Item:
    """An EBS volume."""
    tags, state = _tags(volume.get("Tags")), str(volume.get("State", ""))
    return _item(
        tags,
        id=str(volume["VolumeId"]),
        kind="disk",
        name=tags.get("Name", ""),
        state=_SIDES.get(state, HostState.RUNNING),
        zone=str(volume.get("AvailabilityZone", "")),
        created=_moment(volume.get("CreateTime")),
        attached_to=next((str(one.get("InstanceId", "")) for one in volume.get("Attachments", ())), ""),
        why="the disk failed at EC2" if state == "error" else "",
    )


def nic(interface: _Answer) -> Item:
    """A network interface; EC2 does not say when it was made, so only an attached one has a time."""
    tags, attachment = _tags(interface.get("TagSet")), interface.get("Attachment") or {}
    return _item(
        tags,
        id=str(interface["NetworkInterfaceId"]),
        kind="nic",
        name=tags.get("Name", ""),
        state=_SIDES.get(str(interface.get("Status", "")), HostState.RUNNING),
        zone=str(interface.get("AvailabilityZone", "")),
        created=_moment(attachment.get("AttachTime")),
        attached_to=str(attachment.get("InstanceId") or ""),
    )


def address(elastic: _Answer, region: str) -> Item:
    """An Elastic IP address."""
    tags = _tags(elastic.get("Tags"))
    return _item(
        tags,
        id=str(elastic.get("AllocationId") or elastic.get("PublicIp", "")),
        kind="address",
        name=tags.get("Name", ""),
        state=HostState.RUNNING,
        zone=region,
        attached_to=str(elastic.get("InstanceId") or ""),
    )


def _item(tags: Mapping[str, str], **fields: Any) -> Item:
    said: Mapping[str, Any] = from_tags(tags)
    return Item(**fields, **said)


def _tags(tags: object) -> dict[str, str]:
    pairs = tags if isinstance(tags, list) else []
    return {str(pair["Key"]): str(pair.get("Value", "")) for pair in pairs}


def _moment(value: object) -> datetime | None:
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def _why(instance: _Answer, state: str) -> str:
    """Why a machine does not live, unless we asked for it."""
    if state in {"pending", "running"}:
        return ""
    reason = instance.get("StateReason") or {}
    code, message = str(reason.get("Code", "")), str(reason.get("Message", ""))
    if state in {"stopping", "stopped"}:
        return f"stopped at EC2 ({message or 'no reason given'}), and will not run again"[:300]
    if code == _ENDED_BY_US:
        return ""
    # EC2 repeats the code before its words.
    return f"{code}: {re.sub(rf'^{re.escape(code)}: ?', '', message)}".strip(": ")[:300]
