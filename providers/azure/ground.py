"""What an environment on Azure needs to be told: where its machines stand, and what they are made of."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import urlsplit

from azure.core.credentials import TokenCredential
from pydantic import ConfigDict

from providers.contract import Blame, ErrorClass, ProviderError

PUBLIC_CLOUD: Final = "https://management.azure.com"
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ID: Final = "/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
_SUBNET: Final = re.compile(_ID + r"Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+", re.I)
_IDENTITY: Final = re.compile(_ID + r"Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+", re.I)
_IMAGE_ID: Final = re.compile(_ID + r"Microsoft\.Compute/(images|galleries/[^/]+/images)/[^/]+(/versions/[^/]+)?", re.I)
_GALLERY: Final = re.compile(r"/(Shared|Community)Galleries/[^/]+/Images/[^/]+/Versions/[^/]+", re.I)
_URN: Final = re.compile(r"[^:/\s]+(:[^:/\s]+){3}")
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


def invalid(message: str, code: str) -> ProviderError:
    """The error for what a caller must mend."""
    return ProviderError(ErrorClass.INVALID, message, code=code, blame=Blame.CALLER)


def check_image(image: str) -> None:
    """Refuse what Azure could not read as an image. Raises ProviderError (invalid, caller)."""
    if not any(known.fullmatch(image) for known in (_IMAGE_ID, _GALLERY, _URN)):
        raise invalid(
            f"image {image!r} is none: allowed are the id of an image or of a gallery's image, and "
            "publisher:offer:sku:version",
            "image",
        )


@dataclass(frozen=True, slots=True)
class AzureGround:
    """The settings of one environment; give it a resource group of its own, which clean-up then lists whole.

    `zones` are the region's, as "1"; empty for machines in no zone. `identity` is the id of a user-assigned identity,
    by which a host gets its secrets. Without `ssh_public_key` a key is made and its private half forgotten: nobody can
    sign in. `endpoint` is another cloud's Resource Manager, or a test's on loopback. Without `credential` it is
    DefaultAzureCredential's. Raises ProviderError (invalid, caller) that names the field.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)  # the credential

    subscription: str
    resource_group: str
    region: str
    subnet: str
    image: str
    zones: tuple[str, ...] = ("1", "2", "3")
    identity: str = ""
    disk_gib: int = 64
    disk_type: str = "Premium_LRS"
    admin: str = "paddock"
    ssh_public_key: str = ""
    endpoint: str = PUBLIC_CLOUD
    credential: TokenCredential | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, pattern, words in (
            ("subscription", _GUID, "a GUID"),
            ("resource_group", re.compile(r"[-\w.()]{0,89}[-\w()]"), "a name of 1 to 90 characters"),
            ("region", re.compile(r"[a-z0-9]+"), "a region's short name, as westeurope"),
            ("subnet", _SUBNET, "the id of a subnet"),
            ("identity", re.compile(f"|{_IDENTITY.pattern}", re.I), "the id of a user-assigned identity, or empty"),
            ("disk_type", re.compile(r"(Premium|StandardSSD|Standard)_(LRS|ZRS)"), "a disk type, as Premium_LRS"),
            ("admin", re.compile(r"(?!root$|admin$|administrator$)[a-z_][-a-z0-9_]{0,31}"), "a user that may be made"),
            ("ssh_public_key", re.compile(r"|(ssh-rsa|ssh-ed25519) \S+.*"), "an OpenSSH public key, or empty"),
        ):
            value = getattr(self, name)
            if not pattern.fullmatch(value):
                raise invalid(f"Azure ground: {name} is {value!r}: it must be {words}", name)
        check_image(self.image)
        if not 1 <= self.disk_gib <= 4095:
            raise invalid(f"Azure ground: disk_gib is {self.disk_gib}: 1 to 4095 are allowed", "disk_gib")
        address = urlsplit(self.endpoint)
        if address.scheme != "https" and not self.on_loopback:
            raise invalid(f"Azure ground: endpoint is {self.endpoint!r}: it must be https", "endpoint")

    @property
    def on_loopback(self) -> bool:
        """Whether the endpoint is a test's: a token may pass to it without TLS."""
        address = urlsplit(self.endpoint)
        return address.scheme == "http" and address.hostname in _LOOPBACK
