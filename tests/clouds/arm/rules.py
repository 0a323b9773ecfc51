"""What Azure refuses of a machine beyond its schema: each with Azure's own code."""

import base64
import binascii
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
Refusal = tuple[int, str, str]
_UPPER = re.compile(r"Standard_[A-Z]+[0-9]+[a-z]*(_v[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Known:
    """What exists around the machines: outside of it, a name is not found."""

    region: str
    zones: Collection[str]
    subnets: Collection[str]
    images: Collection[str]


def refusals(name: str, wanted: Body, known: Known) -> Iterator[Refusal]:
    """All that is wrong; the first is what Azure says."""
    yield from _tags(wanted.get("tags") or {})
    if not re.fullmatch(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,62}[a-zA-Z0-9])?", name):
        yield 400, "InvalidResourceName", f"The resource name {name!r} is not valid."
    if wanted.get("location") != known.region:
        yield (
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location {wanted.get('location')!r} is not here.",
        )
    for zone in wanted.get("zones") or []:
        if zone not in known.zones:
            yield 400, "AvailabilityZoneNotSupported", f"The zone(s) '{zone}' for resource '{name}' is not supported."
    about = wanted.get("properties") or {}
    yield from _size(about)
    yield from _storage(about, known)
    yield from _system(about)
    yield from _network(about, known)
    if about.get("evictionPolicy") and about.get("priority") != "Spot":
        yield _invalid("evictionPolicy", "Eviction policy can be set only on Azure Spot Virtual Machines.")


def changes(before: Body, wanted: Body) -> Iterator[Refusal]:
    """What a second request for an existing machine may not change."""
    for path in (("osProfile", "computerName"), ("osProfile", "adminUsername"), ("storageProfile", "osDisk", "name")):
        if _at(before["properties"], path) != _at(wanted.get("properties") or {}, path):
            where = ".".join(path)
            yield 409, "PropertyChangeNotAllowed", f"Changing property '{where}' is not allowed."
    if before.get("zones") != wanted.get("zones"):
        yield 409, "PropertyChangeNotAllowed", "Changing property 'zones' is not allowed."


def _tags(tags: dict[str, str]) -> Iterator[Refusal]:
    if len(tags) > 50:
        yield 400, "InvalidTag", "A resource may have 50 tags at most."
    for key, value in tags.items():
        if re.search(r"[<>%&\\?/]", key):
            yield 400, "InvalidTagNameCharacters", f"The tag name {key!r} has reserved characters '<,>,%,&,\\,?,/'."
        if len(key) > 512 or len(value) > 256:
            yield 400, "InvalidTagValueLength", f"The tag {key!r} is longer than 512 or 256 characters."


def _size(about: Body) -> Iterator[Refusal]:
    size = _at(about, ("hardwareProfile", "vmSize")) or ""
    if not _UPPER.fullmatch(size):
        yield _invalid("vmSize", f"The value {size} provided for the VM size is not valid.")


def _storage(about: Body, known: Known) -> Iterator[Refusal]:
    disk = _at(about, ("storageProfile", "osDisk")) or {}
    if disk.get("createOption") != "FromImage":
        yield _invalid("osDisk.createOption", "Required parameter 'osDisk.createOption' is missing (null).")
    if not re.fullmatch(r"[a-zA-Z0-9]([-\w]{0,78}[a-zA-Z0-9_])?", disk.get("name") or ""):
        yield _invalid("osDisk.name", "Disk name must be 1 to 80 characters: letters, digits, '_' and '-'.")
    image = _at(about, ("storageProfile", "imageReference")) or {}
    named = image.get("id") or image.get("sharedGalleryImageId") or image.get("communityGalleryImageId")
    named = named or ":".join(str(image.get(part)) for part in ("publisher", "offer", "sku", "version"))
    if named not in known.images:
        code = "GalleryImageNotFound" if "alleries/" in named else "PlatformImageNotFound"
        yield 404, code, f"The image {named} was not found in location {known.region}."


def _system(about: Body) -> Iterator[Refusal]:
    system = about.get("osProfile") or {}
    linux = system.get("linuxConfiguration") or {}
    keys = _at(linux, ("ssh", "publicKeys")) or []
    if not system.get("computerName") or len(system["computerName"]) > 64:
        yield _invalid("osProfile.computerName", "The Linux host name must be 1 to 64 characters.")
    if not system.get("adminUsername") or system["adminUsername"] in {"root", "admin", "administrator"}:
        yield _invalid("adminUsername", "The Admin Username specified is not allowed.")
    if not keys and not system.get("adminPassword"):
        yield _invalid("adminPassword", "Authentication using either SSH or by user name and password must be enabled.")
    for key in keys:
        if not re.fullmatch(r"ssh-(rsa|ed25519) [A-Za-z0-9+/=]{60,}( .*)?", key.get("keyData") or ""):
            yield _invalid("linuxConfiguration.ssh.publicKeys.keyData", "The value is not a valid OpenSSH public key.")
    data = system.get("customData")
    if data is not None and (len(data) > 87_380 or not _base64(data)):
        yield _invalid("customData", "Custom data in OSProfile must be in Base64 encoding and with a maximum length.")


def _network(about: Body, known: Known) -> Iterator[Refusal]:
    network = about.get("networkProfile") or {}
    made = network.get("networkInterfaceConfigurations") or []
    if not made:
        yield _invalid("networkProfile", "Virtual Machine must have at least one network interface.")
    if made and not network.get("networkApiVersion"):
        yield _invalid("networkApiVersion", "networkApiVersion is required with networkInterfaceConfigurations.")
    for one in made:
        yield from _tags(one.get("tags") or {})
        for address in (one.get("properties") or {}).get("ipConfigurations") or []:
            subnet = _at(address, ("properties", "subnet", "id"))
            if subnet not in known.subnets:
                yield 400, "InvalidResourceReference", f"Resource {subnet} referenced by {one['name']} was not found."


def _base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _at(body: Body, path: tuple[str, ...]) -> Any:
    found: Any = body
    for key in path:
        found = (found or {}).get(key)
    return found


def _invalid(parameter: str, message: str) -> Refusal:
    return 400, "InvalidParameter", f"{message} (parameter {parameter})"
