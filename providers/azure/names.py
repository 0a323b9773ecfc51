"""Names and ids on Azure: of a ground's resources, and of what belongs to an order when it has no tags."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from providers.azure.ground import AzureGround, invalid
from providers.contract import HostOrder, Item

TYPES: Final = {
    "host": "Microsoft.Compute/virtualMachines",
    "disk": "Microsoft.Compute/disks",
    "nic": "Microsoft.Network/networkInterfaces",
    "address": "Microsoft.Network/publicIPAddresses",
}
LONGEST_DISK_NAME: Final = 80
_PROVED: Final = ("paddock-controller", "paddock-environment", "paddock-host", "paddock-attempt")
_ORDER: Final = re.compile(r"ph-[0-9a-f]{20}-[0-9]{1,9}")
_DISK: Final = re.compile(r"(?P<order>ph-[0-9a-f]{20}-(?P<attempt>[0-9]{1,9}))-(?P<whose>.+)-os")


@dataclass(frozen=True, slots=True)
class Names:
    """Ids in one spelling: Azure itself answers with other cases than it was asked with, and takes any."""

    ground: AzureGround

    def id(self, kind: str, name: str) -> str:
        """The id of a resource of this ground."""
        return (
            f"/subscriptions/{self.ground.subscription}/resourceGroups/{self.ground.resource_group}"
            f"/providers/{TYPES[kind]}/{name}"
        )

    def known(self, kind: str, id: str | None) -> str:
        """An id that Azure told, in our spelling; another ground's as it is, and nothing for none."""
        name = (id or "").rpartition("/")[2]
        mine = self.id(kind, name)
        return mine if (id or "").lower() == mine.lower() else id or ""

    def name(self, item: Item) -> str:
        """The name of an item, which must lie in this ground. Raises ProviderError (invalid, caller)."""
        if item.kind not in TYPES:
            raise invalid(f"{item.name} is a {item.kind}: {', '.join(TYPES)} are allowed", "kind")
        name = item.id.rpartition("/")[2]
        if not name or item.id.lower() != self.id(item.kind, name).lower():
            raise invalid(
                f"{item.kind} {item.id!r} does not lie in resource group {self.ground.resource_group} of subscription "
                f"{self.ground.subscription}: it is left alone",
                "id",
            )
        return name


def disk_of(order: HostOrder) -> str:
    """The OS disk's name. It carries environment and host, so that the disk can prove whose it is without a tag.

    Azure takes no tags for a disk that it makes with a machine. It copies the machine's there, as its users found,
    and promises that nowhere.
    """
    name = f"{order.name}-{order.environment}-{order.host}-os"
    return name if len(name) <= LONGEST_DISK_NAME else f"{order.name}-os"


def nic_of(order_name: str) -> str:
    """The interface's name as it is asked for."""
    return f"{order_name}-nic"


def is_order(name: str) -> bool:
    """Whether a machine's name is one that an order gives."""
    return _ORDER.fullmatch(name) is not None


def proved_by(disk: str, controller: str) -> dict[str, str]:
    """The tags that an untagged disk's name proves for this controller; empty when it proves none."""
    parts = _DISK.fullmatch(disk)
    if parts is None:
        return {}
    words = parts["whose"].split("-")
    for at in range(1, len(words)):  # both may have hyphens: the order's name tells where the one ends
        environment, host = "-".join(words[:at]), "-".join(words[at:])
        order = HostOrder(
            controller=controller,
            environment=environment,
            host=host,
            attempt=int(parts["attempt"]),
            size="",
            zone="",
            deadline=datetime.fromtimestamp(0, UTC),
        )
        if order.name == parts["order"]:
            tags = order.tags
            return {key: tags[key] for key in _PROVED}
    return {}
