"""The sizes that may be ordered on Azure, with dated prices: a list of series, because no API tells who nests."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from providers.contract import Blame, ErrorClass, HostSize, ProviderError

# Linux, on demand, US dollars for one vCPU and hour; within a series the price is linear in vCPUs to one per cent.
PRICED_AT: Final = datetime(2026, 6, 18, tzinfo=UTC)
_REGIONS: Final = (
    "eastus",
    "eastus2",
    "westus2",
    "westus3",
    "northeurope",
    "westeurope",
    "swedencentral",
    "germanywestcentral",
    "francecentral",
    "uksouth",
)
_D: Final = (2, 4, 8, 16, 32, 48, 64, 96)
_D64: Final = (2, 4, 8, 16, 32, 48, 64)
_E: Final = (2, 4, 8, 16, 20, 32, 48)  # larger ones have less memory for each vCPU


@dataclass(frozen=True, slots=True)
class _Series:
    """Sizes that differ in vCPUs only; `prices` in the order of `_REGIONS`, None where it is not sold."""

    kvm: str
    gib_per_vcpu: int
    vcpus: tuple[int, ...]
    prices: tuple[float | None, ...]


# `nested` where Azure's own documentation of the series says so, else `proof`. v6 and v7 boot from NVMe: their image
# must say that it can.
_SERIES: Final = {
    "Dsv3": _Series("nested", 4, _D64, (0.048, 0.048, 0.048, 0.048, 0.0535, 0.06, 0.051, 0.0575, 0.056, 0.058)),
    "Dsv4": _Series("nested", 4, _D64, (0.048, 0.048, 0.048, 0.048, 0.0535, 0.0575, 0.051, 0.0575, 0.056, 0.0555)),
    "Ddsv4": _Series("proof", 4, _D64, (0.0565, 0.0565, 0.0565, 0.0565, 0.063, 0.068, 0.06, 0.068, 0.066, 0.0655)),
    "Dsv5": _Series("nested", 4, _D, (0.048, 0.048, 0.048, 0.048, 0.0535, 0.0575, 0.051, 0.0575, 0.056, 0.0555)),
    "Ddsv5": _Series("proof", 4, _D, (0.0565, 0.0565, 0.0565, 0.0565, 0.063, 0.068, 0.06, 0.068, 0.066, 0.0655)),
    "Dasv5": _Series("nested", 4, _D, (0.043, 0.043, 0.043, 0.043, 0.048, 0.052, 0.046, 0.052, 0.0505, 0.05)),
    "Dadsv5": _Series("proof", 4, _D, (0.0515, 0.0515, 0.0515, 0.0515, 0.0575, 0.0625, 0.055, 0.0625, 0.0605, 0.06)),
    "Dsv6": _Series("nested", 4, _D, (0.0504, 0.0504, 0.0504, 0.0504, 0.0562, 0.0604, 0.0535, 0.0604, 0.0588, 0.0583)),
    "Ddsv6": _Series("proof", 4, _D, (0.0623, 0.0623, 0.0623, 0.0623, 0.0694, 0.0746, 0.0662, 0.0746, 0.0727, 0.072)),
    "Dasv6": _Series("nested", 4, _D, (0.0454, 0.0454, 0.0454, 0.0454, 0.0506, 0.0549, 0.0485, 0.0549, 0.0533, 0.0528)),
    "Dadsv6": _Series("proof", 4, _D, (0.057, 0.057, 0.057, 0.057, 0.0637, 0.069, 0.061, 0.069, 0.067, 0.0663)),
    "Dsv7": _Series("nested", 4, _D, (0.0661, 0.0661, 0.0661, 0.0661, 0.0764, 0.0826, 0.0673, 0.0762, None, 0.0798)),
    "Dasv7": _Series("proof", 4, _D, (0.0454, 0.0454, 0.0454, 0.0454, 0.0506, 0.0549, 0.0485, 0.0549, 0.0533, 0.0528)),
    "Esv3": _Series("nested", 8, _E, (0.063, 0.0665, 0.063, 0.063, 0.0705, 0.08, 0.067, 0.076, 0.078, 0.078)),
    "Esv4": _Series("nested", 8, _E, (0.063, 0.063, 0.063, 0.063, 0.0705, 0.076, 0.067, 0.076, 0.074, 0.074)),
    "Esv5": _Series("proof", 8, _E, (0.063, 0.063, 0.063, 0.063, 0.0705, 0.076, 0.067, 0.076, 0.074, 0.074)),
    "Easv5": _Series("proof", 8, _E, (0.0565, 0.0565, 0.0565, 0.0565, 0.0635, 0.0685, 0.0605, 0.0685, 0.0665, 0.0665)),
    "Esv6": _Series("proof", 8, _E, (0.0661, 0.0661, 0.0661, 0.0661, 0.074, 0.0798, 0.0704, 0.0798, 0.0777, 0.0777)),
    "Easv6": _Series("proof", 8, _E, (0.0596, 0.0596, 0.0596, 0.0596, 0.0665, 0.0721, 0.0638, 0.0721, 0.07, 0.0693)),
}
# Family, vCPUs, features, version: Standard_D8as_v5. A constrained size (E4-2s_v5) is none of these.
_NAME: Final = re.compile(r"Standard_([A-Z]+)([0-9]{1,3})([a-z]*)(?:_v([0-9]{1,2}))?")


def catalogue(region: str, zones: tuple[str, ...]) -> tuple[HostSize, ...]:
    """All that may be ordered in a region; without a price where the table has none for it."""
    return tuple(
        _size(series, vcpu, region, zones)
        for series, row in _SERIES.items()
        for vcpu in row.vcpus
        if region not in _REGIONS or row.prices[_REGIONS.index(region)] is not None
    )


def find(name: str, region: str, zones: tuple[str, ...]) -> HostSize:
    """The size of this name. Raises ProviderError (invalid, caller) for one that nobody knows or that gives no KVM."""
    for size in catalogue(region, zones):
        if size.name == name:
            return size
    raise ProviderError(ErrorClass.INVALID, f"size {name!r} {_why_not(name, region)}", code="size", blame=Blame.CALLER)


def _size(series: str, vcpu: int, region: str, zones: tuple[str, ...]) -> HostSize:
    row = _SERIES[series]
    price = row.prices[_REGIONS.index(region)] if region in _REGIONS else None
    family, features, version = series[0], series[1 : series.index("v")], series[series.index("v") :]
    return HostSize(
        name=f"Standard_{family}{vcpu}{features}_{version}",
        vcpu=vcpu,
        memory_mib=vcpu * row.gib_per_vcpu * 1024,
        kvm=row.kvm,
        price_per_hour=round(price * vcpu, 4) if price is not None else None,
        currency="USD" if price is not None else "",
        as_of=PRICED_AT if price is not None else None,
        zones=zones,
    )


def _why_not(name: str, region: str) -> str:
    parts = _NAME.fullmatch(name)
    allowed = f"allowed are 2 to 96 vCPUs of {', '.join(_SERIES)}, as in Standard_D8s_v5"
    if parts is None:
        return f"is no size that is known here: {allowed}"
    family, vcpu, features, version = parts.groups()
    series = f"{family}{features}v{version}" if version else f"{family}{features}"
    if family[:2] in {"DC", "EC"}:
        return f"is confidential, and gives no KVM: {allowed}"
    if "p" in features:
        return f"is an Arm machine, and gives no KVM: {allowed}"
    if family == "B":
        return f"is burstable ({series}), and gives no KVM: {allowed}"
    if family in {"A", "D", "DS"} and (version in {None, "2"} or (version == "4" and "a" in features)):
        return f"is of series {series}, which gives no KVM: {allowed}"
    row = _SERIES.get(series)
    if row is None:
        return f"is of series {series}, which is not on the list: {allowed}"
    if int(vcpu) in row.vcpus:
        return f"is not sold in region {region}"
    return f"is no size of series {series}: it has {', '.join(map(str, row.vcpus))} vCPUs"
