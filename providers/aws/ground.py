"""The settings of an AWS ground: regions with their subnets and image, and what every machine there gets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn

from providers.contract import Blame, ErrorClass, ProviderError

_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}")
_RESOURCE = r"-[0-9a-f]{8,17}"
SMALLEST_GIB, LARGEST_GIB = 8, 16_384


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Explicit credentials, of which nothing is ever shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may hold."""
        return tuple(one for one in (self.secret_access_key, self.session_token, self.access_key_id) if one)


@dataclass(frozen=True, slots=True)
class AwsRegion:
    """One region: zone -> subnet, the AMI that hosts start from, and their security groups.

    Without subnets nothing is made there, and what is left there is still listed and ended.
    """

    name: str
    image: str = ""
    subnets: Mapping[str, str] = field(default_factory=dict)
    security_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"region {self.name!r}"
        if not _REGION.fullmatch(self.name):
            _refuse(f"{where} is no region's name: one like eu-central-1 is wanted")
        for zone, subnet in self.subnets.items():
            if not zone.startswith(self.name):
                _refuse(f"zone {zone!r} is not in {where}: its name begins with the region's")
            _check(f"the subnet of zone {zone}", subnet, "subnet")
        for group in self.security_groups:
            _check(f"a security group of {where}", group, "sg")
        if self.image or self.subnets:
            _check(f"the image of {where}", self.image, "ami")
        object.__setattr__(self, "subnets", MappingProxyType(dict(self.subnets)))


@dataclass(frozen=True, slots=True)
class AwsGround:
    """Where and how machines are made. Without `keys` the SDK looks for credentials as it always does.

    `instance_profile` is a name or an ARN ("": none), `volume_gib` the root disk, at least the image's own.
    `settle_s` is how long EC2 may not show what was just created: until then, "not found" proves nothing.
    `endpoint_url` is for an emulator. Raises ProviderError (invalid) for settings that cannot be right.
    """

    regions: tuple[AwsRegion, ...]
    instance_profile: str = ""
    volume_gib: int = 64
    keys: AwsKeys | None = None
    endpoint_url: str = ""
    settle_s: float = 180.0

    def __post_init__(self) -> None:
        names = [region.name for region in self.regions]
        if not names:
            _refuse("no region is set: at least one is needed")
        if len(set(names)) != len(names):
            _refuse(f"a region is set twice: {', '.join(names)}")
        if not SMALLEST_GIB <= self.volume_gib <= LARGEST_GIB:
            _refuse(f"volume_gib is {self.volume_gib}: {SMALLEST_GIB} to {LARGEST_GIB} are allowed")

    def to_create(self, zone: str) -> AwsRegion:
        """The region in which this zone has a subnet. Raises ProviderError (invalid)."""
        fitting = [region for region in self.regions if zone in region.subnets]
        if not fitting:
            known = ", ".join(sorted(zone for region in self.regions for zone in region.subnets))
            _refuse(f"zone {zone!r} is not set up here: {known or 'no zone'} can be ordered", "zone")
        return fitting[0]

    def region_of(self, zone: str) -> AwsRegion:
        """The region that a zone, also one without a subnet by now, or the region's own name belongs to.

        Raises ProviderError (invalid).
        """
        fitting = [region for region in self.regions if zone in region.subnets or zone.startswith(region.name)]
        if not fitting:
            known = ", ".join(region.name for region in self.regions)
            _refuse(f"zone {zone!r} is in no region that is set up here: {known}", "zone")
        return max(fitting, key=lambda region: len(region.name))


def _check(what: str, value: str, kind: str) -> None:
    if not re.fullmatch(kind + _RESOURCE, value):
        _refuse(f"{what} is {value!r}: an id like {kind}-0123456789abcdef0 is wanted")


def _refuse(message: str, code: str = "settings") -> NoReturn:
    raise ProviderError(ErrorClass.INVALID, message, code=code, blame=Blame.CALLER)
