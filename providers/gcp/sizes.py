"""Google's machine families and sizes: how each comes to KVM, its shape, and its price on a known day (sizes.json)."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from providers.contract import Blame, ErrorClass, HostSize, ProviderError

METAL = "metal"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a size is ordered: `kvm` as in HostSize, the processor that has it, its kinds of disk and interface."""

    kvm: str
    min_cpu_platform: str
    disk: str
    nic: str = ""

    @property
    def nesting(self) -> bool:
        """Whether to ask for nested virtualisation: metal has the real thing and must not be asked for it."""
        return self.kvm in {"nested", "proof"}


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("providers.gcp").joinpath("sizes.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def shape(size: str) -> Shape:
    """How to order this size. Raises ProviderError (invalid, caller) for one that is unknown or can have no KVM."""
    family = size.split("-", 1)[0]
    known = _data()["families"].get(family)
    if known is None or "-" not in size:
        usable = ", ".join(name for name, one in _data()["families"].items() if one["kvm"] != "none")
        raise _refused(f"size {size!r} is of no family that is known to give KVM: order one of {usable}", "size")
    if size.endswith("-metal"):
        return Shape(METAL, "", "hyperdisk-balanced", "IDPF")
    if known["kvm"] == "none":
        raise _refused(f"size {size!r} cannot run microVMs: {known['why']}; order an n2 or n1 size", "kvm")
    return Shape(known["kvm"], known["min_cpu_platform"], known["disk"])


def catalogue(zones: Sequence[str]) -> tuple[HostSize, ...]:
    """Every known size, once for each region of `zones`, as prices differ by region; None where no price is known."""
    data = _data()
    as_of = datetime.fromisoformat(data["as_of"]).replace(tzinfo=UTC)
    regions: dict[str, list[str]] = {}
    for zone in zones:
        regions.setdefault(region_of(zone), []).append(zone)
    return tuple(
        HostSize(
            name=name,
            vcpu=vcpu,
            memory_mib=mib,
            kvm=METAL if name.endswith("-metal") else data["families"][name.split("-", 1)[0]]["kvm"],
            price_per_hour=(price := _price(name, vcpu, mib, region)),
            currency="" if price is None else data["currency"],
            as_of=None if price is None else as_of,
            zones=tuple(within),
        )
        for name, (vcpu, mib) in data["sizes"].items()
        for region, within in regions.items()
    )


def _price(size: str, vcpu: int, mib: int, region: str) -> float | None:
    family, data = size.split("-", 1)[0], _data()
    core = data["per_vcpu_hour"].get(family, {}).get(region)
    gib = data["per_gib_hour"].get(family, {}).get(region)
    if core is None or gib is None or size.endswith("-metal"):
        return None
    return round(float(vcpu * core + mib / 1024 * gib), 6)


def region_of(zone: str) -> str:
    """`europe-west4` for `europe-west4-a`."""
    return zone.rpartition("-")[0]


def _refused(words: str, code: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID, words, code=code, blame=Blame.CALLER)
