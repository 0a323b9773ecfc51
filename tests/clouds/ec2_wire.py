"""The wire of the emulated EC2: its query requests, its XML answers, and what the real one refuses and moto takes."""

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

SPACE = "http://ec2.amazonaws.com/doc/2016-11-15"
NESTED = "nested-virtualization"
TAGGABLE = {"instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu"}
ENUMS = {
    "CpuOptions.NestedVirtualization": {"enabled", "disabled"},
    "MetadataOptions.HttpTokens": {"optional", "required"},
    "MetadataOptions.HttpEndpoint": {"enabled", "disabled"},
    "InstanceInitiatedShutdownBehavior": {"stop", "terminate"},
    "InstanceMarketOptions.MarketType": {"spot", "capacity-block"},
}
ElementTree.register_namespace("", SPACE)


class Refusal(Exception):
    """An error as EC2 answers it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        error = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        return f"<Response><Errors>{error}</Errors><RequestID>emulated</RequestID></Response>".encode()


@dataclass(frozen=True)
class Request:
    """One call of the query protocol."""

    form: Mapping[str, str]
    authorization: str

    @classmethod
    def read(cls, body: bytes, authorization: str) -> "Request":
        return cls(dict(parse_qsl(body.decode(), keep_blank_values=True)), authorization)

    @property
    def action(self) -> str:
        return self.form.get("Action", "")

    @property
    def scope(self) -> tuple[str, str]:
        """Access key and region, by the signature."""
        found = re.search(r"Credential=([^/]+)/[^/]+/([^/]+)/", self.authorization)
        return (found[1], found[2]) if found else ("", "")

    def filters(self) -> dict[str, list[str]]:
        names = {key: value for key, value in self.form.items() if re.fullmatch(r"Filter\.\d+\.Name", key)}
        return {value: self._series(key.removesuffix("Name") + "Value") for key, value in names.items()}

    def ids(self, name: str) -> list[str]:
        return self._series(name)

    def tags(self) -> dict[str, dict[str, str]]:
        """The tags of each resource type that a launch names."""
        found: dict[str, dict[str, str]] = {}
        for key, kind in self.form.items():
            if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", key):
                prefix = key.removesuffix("ResourceType") + "Tag."
                pairs = {k: v for k, v in self.form.items() if k.startswith(prefix) and k.endswith(".Key")}
                found[kind] = {v: self.form.get(k.removesuffix("Key") + "Value", "") for k, v in pairs.items()}
        return found

    def _series(self, prefix: str) -> list[str]:
        return [value for key, value in self.form.items() if re.fullmatch(re.escape(prefix) + r"\.\d+", key)]

    def with_filter_as(self, name: str, other: str, values: Collection[str]) -> "Request":
        """The same request with one filter in words that moto knows."""
        names = [key for key in self.form if re.fullmatch(r"Filter\.\d+\.Name", key) and self.form[key] == name]
        dropped = names[0].removesuffix("Name")
        form = {key: value for key, value in self.form.items() if not key.startswith(dropped)}
        form[f"{dropped}Name"] = other
        form |= {f"{dropped}Value.{number}": value for number, value in enumerate(values or ("none",), 1)}
        return Request(form, self.authorization)


def nested_sizes() -> set[str]:
    """The types that advertise nesting, by the scrape of the real API that moto ships."""
    return {
        name
        for name, one in INSTANCE_TYPES.items()
        if NESTED in one.get("ProcessorInfo", {}).get("SupportedFeatures", ())
    }


def check_launch(request: Request, zone: str, images: Collection[str]) -> None:
    """What the real EC2 refuses of a launch. Raises Refusal."""
    form, size = request.form, request.form.get("InstanceType", "")
    if len(form.get("ClientToken", "")) > 64 or not form.get("ClientToken", "").isascii():
        raise Refusal(400, "InvalidParameterValue", "ClientToken must be at most 64 ASCII characters")
    for name, allowed in ENUMS.items():
        if form.get(name, next(iter(allowed))) not in allowed:
            raise Refusal(400, "InvalidParameterValue", f"Value ({form[name]}) for parameter {name} is invalid.")
    if form.get("ImageId", "") not in images:
        raise Refusal(400, "InvalidAMIID.NotFound", f"The image id '[{form.get('ImageId')}]' does not exist")
    if size not in INSTANCE_TYPES:
        raise Refusal(400, "InvalidParameterValue", f"Invalid value '{size}' for InstanceType.")
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(zone[:-1], [])
    if not any(one["InstanceType"] == size and one["Location"] == zone for one in offered):
        text = f"Your requested instance type ({size}) is not supported in your requested Availability Zone ({zone})."
        raise Refusal(400, "Unsupported", text)
    if form.get("CpuOptions.NestedVirtualization") == "enabled" and size not in nested_sizes():
        raise Refusal(400, "UnsupportedOperation", f"The instance type '{size}' does not support nested virtualization")
    _check_user_data(form.get("UserData", ""))
    for kind, tags in request.tags().items():
        if kind not in TAGGABLE:
            raise Refusal(400, "InvalidParameterValue", f"'{kind}' is not a valid taggable resource type")
        check_tags(tags)


def check_tags(tags: Mapping[str, str]) -> None:
    """Limits of tags. Raises Refusal."""
    if len(tags) > 50:
        raise Refusal(400, "TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            text = "Tag keys starting with 'aws:' are reserved for internal use"
        elif not 1 <= len(key) <= 128 or len(value) > 256:
            text = f"Tag '{key[:40]}' is too long"
        elif not re.fullmatch(r"[\w\s.:/=+\-@]*", key + value):
            text = f"Tag '{key}' holds a character that is not allowed"
        else:
            continue
        raise Refusal(400, "InvalidParameterValue", text)


def _check_user_data(encoded: str) -> None:
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except binascii.Error:
        raise Refusal(400, "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if size > 16_384:
        raise Refusal(400, "InvalidParameterValue", "User data is limited to 16384 bytes")


def shown(body: bytes, options: Mapping[str, str], hidden: Collection[str]) -> bytes:
    """An answer of DescribeInstances with the CPU options that moto drops, and without what is not visible yet."""
    root = ElementTree.fromstring(body)
    for reservation in root.iter(f"{{{SPACE}}}instancesSet"):
        for item in list(reservation):
            id = item.findtext(f"{{{SPACE}}}instanceId", "")
            if id in hidden:
                reservation.remove(item)
            elif id in options:
                cpu = ElementTree.SubElement(item, f"{{{SPACE}}}cpuOptions")
                ElementTree.SubElement(cpu, f"{{{SPACE}}}nestedVirtualization").text = options[id]
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def page(body: bytes, set_name: str, start: int, count: int) -> bytes:
    """One page of an answer that moto gives whole."""
    root = ElementTree.fromstring(body)
    listing = root.find(f"{{{SPACE}}}{set_name}")
    assert listing is not None
    items = list(listing)
    for item in (*items[:start], *items[start + count :]):
        listing.remove(item)
    if len(items) > start + count:
        ElementTree.SubElement(root, f"{{{SPACE}}}nextToken").text = str(start + count)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def ending(states: Mapping[str, str]) -> bytes:
    """The answer of TerminateInstances: id -> the state before."""
    items = "".join(
        f"<item><instanceId>{id}</instanceId>"
        f"<currentState><code>{48 if was == 'terminated' else 32}</code>"
        f"<name>{'terminated' if was == 'terminated' else 'shutting-down'}</name></currentState>"
        f"<previousState><code>0</code><name>{was}</name></previousState></item>"
        for id, was in states.items()
    )
    return (
        f'<TerminateInstancesResponse xmlns="{SPACE}"><requestId>emulated</requestId>'
        f"<instancesSet>{items}</instancesSet></TerminateInstancesResponse>"
    ).encode()
