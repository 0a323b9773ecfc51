"""What RunInstances is asked: one machine whose every part carries the order's tags and dies with it."""

import threading
from collections.abc import Mapping
from typing import Any, Final

from providers.aws.client import Clients
from providers.aws.ground import AwsGround, AwsRegion
from providers.contract import Blame, ErrorClass, HostOrder, ProviderError

_TAGGED: Final = ("instance", "volume", "network-interface")


class Images:
    """The disks that an AMI brings: its own device names must be known to size them and have them deleted."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def disks(self, region: str, image: str, gib: int) -> list[dict[str, object]]:
        """The mappings for a launch. Raises ProviderError: invalid when there is no such image."""
        found = self._look(region, image)
        root = found.get("RootDeviceName", "")
        disks: list[dict[str, object]] = []
        for mapping in found.get("BlockDeviceMappings", ()):
            if "Ebs" not in mapping:
                continue
            ebs: dict[str, object] = {"DeleteOnTermination": True, "Encrypted": True}
            if mapping["DeviceName"] == root:
                ebs |= {"VolumeSize": max(gib, int(mapping["Ebs"].get("VolumeSize", 0))), "VolumeType": "gp3"}
            disks.append({"DeviceName": mapping["DeviceName"], "Ebs": ebs})
        return disks

    def _look(self, region: str, image: str) -> Mapping[str, Any]:
        with self._lock:
            known = self._known.get((region, image))
        if known is not None:
            return known
        images = self._clients.call(region, "describe_images", ImageIds=[image])["Images"]
        if not images:
            message = f"image {image!r} is not in {region}, or not for this account: set another image"
            raise ProviderError(ErrorClass.INVALID, message, code="InvalidAMIID.NotFound", blame=Blame.CALLER)
        with self._lock:
            self._known[region, image] = images[0]
        found: Mapping[str, Any] = images[0]
        return found


def request(
    order: HostOrder, region: AwsRegion, ground: AwsGround, disks: list[dict[str, object]], nested: bool
) -> dict[str, object]:
    """The arguments of RunInstances; the same order gives the same, so that its token does."""
    tags = [{"Key": key, "Value": value} for key, value in {**order.tags, "Name": order.name}.items()]
    tagged = (*_TAGGED, "spot-instances-request") if order.spot else _TAGGED
    asked: dict[str, object] = {
        "ImageId": order.image or region.image,
        "InstanceType": order.size,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": str(order.token),
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": region.subnets[order.zone],
                "Groups": list(region.security_groups),
                "DeleteOnTermination": True,
            }
        ],
        "BlockDeviceMappings": disks,
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in tagged],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    }
    if order.user_data:
        asked["UserData"] = order.user_data  # the SDK encodes it
    if nested:
        asked["CpuOptions"] = {"NestedVirtualization": "enabled"}
    if ground.instance_profile:
        by = "Arn" if ground.instance_profile.startswith("arn:") else "Name"
        asked["IamInstanceProfile"] = {by: ground.instance_profile}
    if order.spot:
        spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    return asked
