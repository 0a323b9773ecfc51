"""An environment's settings at Google, and the SDK's clients made from them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import google.auth
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import compute_v1
from google.oauth2.service_account import Credentials

from providers.contract import Blame, ErrorClass, ProviderError
from providers.gcp.errors import classify
from providers.gcp.sizes import region_of

_PROJECT: Final = re.compile(r"([-a-z0-9.]+:)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ZONE: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)


@dataclass(frozen=True, slots=True)
class GcpGround:
    """Where machines may be made. Raises ProviderError (invalid, caller) that names the wrong setting.

    `subnetworks` has a name or path for each region of `zones`; `image` is a name in the project or a path;
    `service_account` the machines' own identity by e-mail ("" for none); `credentials` the content of a service
    account's key file, None for the application's default, which may be of any type; `endpoint` another server's
    address, only for tests: by plain http no credentials are sent.
    """

    project: str
    zones: tuple[str, ...]
    subnetworks: Mapping[str, str]
    image: str
    service_account: str = ""
    disk_gib: int = 50
    endpoint: str = ""
    credentials: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _need(bool(_PROJECT.fullmatch(self.project)), f"project is {self.project!r}: a project's id is wanted")
        _need(bool(self.zones), "zones is empty: name at least one, like europe-west4-a")
        for zone in self.zones:
            _need(bool(_ZONE.fullmatch(zone)), f"zones has {zone!r}: a zone is wanted, like europe-west4-a")
            region = region_of(zone)
            _need(bool(self.subnetworks.get(region)), f"subnetworks has none for {region}, the region of {zone}")
        kind = (self.credentials or {"type": "service_account"}).get("type")
        _need(kind == "service_account", f"credentials is of type {kind!r}: a service account's key is wanted")
        _need(10 <= self.disk_gib <= 65_536, f"disk_gib is {self.disk_gib}: 10 to 65536 are allowed")

    def subnetwork(self, zone: str) -> str:
        """The path of the subnetwork for a machine in this zone."""
        region = region_of(zone)
        name = self.subnetworks[region]
        return name if "/" in name else f"projects/{self.project}/regions/{region}/subnetworks/{name}"

    def image_path(self, wanted: str) -> str:
        """The path of an image; "" for the environment's own."""
        name = wanted or self.image
        _need(bool(name), "no image is set: name one in the environment or in the order")
        return name if "/" in name else f"projects/{self.project}/global/images/{name}"


class Clients:
    """The SDK's clients, made when first used: then credentials are looked for. Raises ProviderError (auth)."""

    def __init__(self, ground: GcpGround) -> None:
        self._ground = ground

    @cached_property
    def _options(self) -> dict[str, Any]:
        endpoint = self._ground.endpoint or None
        try:
            return {"credentials": self._credentials(), "client_options": ClientOptions(api_endpoint=endpoint)}
        except GoogleAuthError as error:
            raise classify(error) from error
        except ValueError:  # a key that is none; its text may quote it
            words = "Google ground: credentials cannot be read: a service account's key file is wanted whole"
            raise ProviderError(ErrorClass.AUTH, words, code="credentials", blame=Blame.CALLER) from None

    def _credentials(self) -> Any:
        if self._ground.endpoint.startswith("http://"):
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        if self._ground.credentials is None:
            return google.auth.default(scopes=_SCOPES)[0]
        info = dict(self._ground.credentials)
        return Credentials.from_service_account_info(info, scopes=_SCOPES)  # type: ignore[no-untyped-call]

    @cached_property
    def instances(self) -> compute_v1.InstancesClient:
        """Machines."""
        return compute_v1.InstancesClient(**self._options)

    @cached_property
    def disks(self) -> compute_v1.DisksClient:
        """Disks, which are zonal here."""
        return compute_v1.DisksClient(**self._options)

    @cached_property
    def addresses(self) -> compute_v1.AddressesClient:
        """Reserved addresses of regions."""
        return compute_v1.AddressesClient(**self._options)

    @cached_property
    def global_addresses(self) -> compute_v1.GlobalAddressesClient:
        """Reserved addresses of no region."""
        return compute_v1.GlobalAddressesClient(**self._options)

    @cached_property
    def operations(self) -> compute_v1.ZoneOperationsClient:
        """What was asked of a zone, and how it went."""
        return compute_v1.ZoneOperationsClient(**self._options)


def _need(holds: bool, words: str) -> None:
    if not holds:
        raise ProviderError(ErrorClass.INVALID, f"Google ground: {words}", code="ground", blame=Blame.CALLER)
