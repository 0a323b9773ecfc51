"""Which sizes come with KVM: EC2 is asked, as a list of families would soon be wrong."""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from providers.aws import prices
from providers.aws.client import Clients
from providers.aws.ground import AwsGround, AwsRegion
from providers.contract import Blame, ErrorClass, HostSize, ProviderError

NESTED: Final = "nested-virtualization"
_KEPT_S: Final = 3600.0
_ARCHITECTURE: Final = "x86_64"  # the guests' own
_FEATURE = {"Name": "processor-info.supported-features", "Values": [NESTED]}
_METAL = {"Name": "bare-metal", "Values": ["true"]}
_X86 = {"Name": "processor-info.supported-architecture", "Values": [_ARCHITECTURE]}


class Sizes:
    """Sizes by region, remembered for an hour. Safe between threads."""

    def __init__(self, clients: Clients, ground: AwsGround) -> None:
        self._clients = clients
        self._ground = ground
        self._kvm: dict[tuple[str, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def kvm(self, region: str, size: str) -> str:
        """`nested` or `metal`. Raises ProviderError: invalid for a size that EC2 does not know or that has no KVM."""
        known = self._known(region, size)
        if known:
            return known
        try:
            answer = self._clients.call(region, "describe_instance_types", InstanceTypes=[size])
        except ProviderError as error:
            if error.kind is not ErrorClass.INVALID:
                raise
            raise _invalid(f"{region} has no size {size!r}: {_instead(region)}", "InvalidInstanceType") from None
        kvm = next((_kvm(one) for one in answer["InstanceTypes"]), "none")
        if kvm == "none":
            why = "it neither offers nested virtualization nor is bare metal"
            raise _invalid(f"size {size!r} has no KVM: {why}; {_instead(region)}", "kvm")
        self._keep(region, size, kvm)
        return kvm

    def catalogue(self) -> tuple[HostSize, ...]:
        """Every size with KVM that a configured zone offers; one entry for each region, as prices differ."""
        return tuple(size for region in self._ground.regions if region.subnets for size in self._of(region))

    def _of(self, region: AwsRegion) -> list[HostSize]:
        zones: dict[str, list[str]] = {}
        for page in self._clients.pages(
            region.name,
            "describe_instance_type_offerings",
            LocationType="availability-zone",
            Filters=[{"Name": "location", "Values": sorted(region.subnets)}],
        ):
            for offer in page["InstanceTypeOfferings"]:
                zones.setdefault(offer["InstanceType"], []).append(offer["Location"])
        found: dict[str, HostSize] = {}
        for wanted in (_FEATURE, _METAL):
            for page in self._clients.pages(region.name, "describe_instance_types", Filters=[wanted, _X86]):
                for one in page["InstanceTypes"]:
                    name = str(one["InstanceType"])
                    self._keep(region.name, name, _kvm(one))
                    if name in zones:
                        found[name] = _size(region.name, one, tuple(sorted(zones[name])))
        return [found[name] for name in sorted(found)]

    def _known(self, region: str, size: str) -> str:
        with self._lock:
            kvm, until = self._kvm.get((region, size), ("", 0.0))
        return kvm if time.monotonic() < until else ""

    def _keep(self, region: str, size: str, kvm: str) -> None:
        with self._lock:
            self._kvm[region, size] = (kvm, time.monotonic() + _KEPT_S)


def _kvm(one: Mapping[str, Any]) -> str:
    if one.get("BareMetal"):
        return "metal"
    return "nested" if NESTED in one.get("ProcessorInfo", {}).get("SupportedFeatures", ()) else "none"


def _size(region: str, one: Mapping[str, Any], zones: tuple[str, ...]) -> HostSize:
    cost = prices.price(region, str(one["InstanceType"]))
    return HostSize(
        name=str(one["InstanceType"]),
        vcpu=int(one["VCpuInfo"]["DefaultVCpus"]),
        memory_mib=int(one["MemoryInfo"]["SizeInMiB"]),
        kvm=_kvm(one),
        price_per_hour=cost,
        currency="" if cost is None else prices.CURRENCY,
        as_of=None if cost is None else prices.AS_OF,
        zones=zones,
    )


def _instead(region: str) -> str:
    return f"order a size of the catalogue of {region}, such as m8i.large"


def _invalid(message: str, code: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID, message, code=code, blame=Blame.CALLER)
