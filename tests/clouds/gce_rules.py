"""What Google refuses of a new machine although its schema allows it, in Google's words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROJECT = "paddock-test"
ZONES = ("europe-west4-a", "europe-west4-b", "us-central1-a")
SIZES = (
    "n1-standard-4",
    "n1-standard-8",
    "n2-standard-4",
    "n2-standard-8",
    "c2-standard-4",
    "c3-standard-4",
    "c3-standard-192-metal",
    "n4-standard-4",
    "e2-standard-4",
    "n2d-standard-4",
    "t2a-standard-4",
)
PLATFORMS = {"n1": "Intel Haswell", "n2": "Intel Cascade Lake", "c2": "Intel Cascade Lake"}
WITHOUT_NESTING = re.compile(r"(n2d|c2d|c3d|t2d|t2a|c4a)-")
SILENT = re.compile(r"e2-")  # takes the flag, says nothing, and has no KVM
ONLY_HYPERDISK = re.compile(r"(n4|c4)-|.*-metal$")
LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
LARGEST_VALUE = 262_144
SHORTEST_S, LONGEST_S = 30, 120 * 86_400


class Refusal(Exception):
    """An answer that is an error: HTTP status, Google's reason, its text, and a header's Retry-After."""

    def __init__(self, status: int, reason: str, text: str, retry_after: str = "") -> None:
        super().__init__(text)
        self.status, self.reason, self.text, self.retry_after = status, reason, text, retry_after

    def body(self) -> dict[str, Any]:
        """The error as Google words it."""
        first = {"message": self.text, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.text, "errors": [first]}}


@dataclass(frozen=True, slots=True)
class Project:
    """What the emulated project has, and what its organisation forbids."""

    zones: tuple[str, ...] = ZONES
    images: tuple[str, ...] = (f"projects/{PROJECT}/global/images/paddock-host",)
    constraints: tuple[str, ...] = ()
    regions: frozenset[str] = field(default=frozenset({"europe-west4", "us-central1"}))


def invalid(where: str, value: object, words: str) -> Refusal:
    return Refusal(400, "invalid", f"Invalid value for field '{where}': '{value}'. {words}")


def not_found(link: str) -> Refusal:
    return Refusal(404, "notFound", f"The resource '{link}' was not found")


def check_request_id(request_id: str) -> None:
    """A UUID that is not zero, or none."""
    if request_id and (not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)):
        raise invalid("requestId", request_id, "Must be a UUID.")
    if request_id and not request_id.strip("0-"):
        raise invalid("requestId", request_id, "The zero UUID is not supported.")


def check_insert(project: Project, zone: str, body: Mapping[str, Any]) -> None:
    """Refuses what no machine of this body could be made from."""
    size = _size(zone, body)
    _check_labels("resource.labels", body.get("labels", {}))
    _check_disks(project, size, body)
    _check_network(project, zone, size, body)
    _check_processor(project, size, body)
    _check_scheduling(body.get("scheduling", {}))
    for item in body.get("metadata", {}).get("items", ()):
        if len(item["value"].encode()) > LARGEST_VALUE:
            raise invalid("resource.metadata.items", item["key"], "Metadata value is too large.")


def has_vmx(size: str, body: Mapping[str, Any]) -> bool:
    """Whether the machine really gets KVM, whatever was said about it."""
    asked = body.get("advancedMachineFeatures", {}).get("enableNestedVirtualization", False)
    return size.endswith("-metal") or (asked and not SILENT.match(size))


def _size(zone: str, body: Mapping[str, Any]) -> str:
    link = body.get("machineType", "")
    fits = re.fullmatch(r"(?:.*/)?zones/([^/]+)/machineTypes/([^/]+)", link)
    if not fits or fits[1] != zone or fits[2] not in SIZES:
        raise invalid("resource.machineType", link, f"The machine type does not exist in zone '{zone}'.")
    return fits[2]


def _check_labels(where: str, labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise invalid(where, "", "At most 64 labels are allowed.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise invalid(where, f"{key}={value}", "Label keys and values can only contain lowercase letters.")


def _check_disks(project: Project, size: str, body: Mapping[str, Any]) -> None:
    disks = body.get("disks", [])
    if len([one for one in disks if one.get("boot")]) != 1:
        raise invalid("resource.disks", "", "Exactly one boot disk must be specified.")
    for at, disk in enumerate(disks):
        wanted = disk.get("initializeParams", {})
        _check_labels(f"resource.disks[{at}].initializeParams.labels", wanted.get("labels", {}))
        if (image := wanted.get("sourceImage", "")) not in project.images:
            raise not_found(image)
        if ONLY_HYPERDISK.match(size) and "/diskTypes/hyperdisk" not in wanted.get("diskType", ""):
            kind = wanted.get("diskType", "pd-standard").rpartition("/")[2]
            raise Refusal(400, "badRequest", f"[1-1]: {kind} disk type cannot be used by {size} machine type.")


def _check_network(project: Project, zone: str, size: str, body: Mapping[str, Any]) -> None:
    networks = body.get("networkInterfaces", [])
    if not networks:
        raise invalid("resource.networkInterfaces", "", "At least one network interface is required.")
    region = zone.rpartition("-")[0]
    for at, one in enumerate(networks):
        if size.endswith("-metal") and one.get("nicType") != "IDPF":
            raise invalid(f"resource.networkInterfaces[{at}].nicType", "", f"{size} takes IDPF only.")
        link = one.get("subnetwork", "")
        if region not in project.regions or f"/regions/{region}/subnetworks/" not in link:
            where = f"resource.networkInterfaces[{at}].subnetwork"
            raise invalid(where, link, "The referenced subnetwork resource cannot be found.")


def _check_processor(project: Project, size: str, body: Mapping[str, Any]) -> None:
    family, platform = size.split("-")[0], body.get("minCpuPlatform", "")
    if platform and PLATFORMS.get(family) != platform:
        raise invalid("resource.minCpuPlatform", platform, f"Not supported by machine type {size}.")
    if not body.get("advancedMachineFeatures", {}).get("enableNestedVirtualization"):
        return
    if (constraint := "constraints/compute.disableNestedVirtualization") in project.constraints:
        raise Refusal(412, "conditionNotMet", f"Constraint {constraint} violated for project {PROJECT}.")
    if WITHOUT_NESTING.match(size) or size.endswith("-metal"):
        raise Refusal(400, "badRequest", f"[1-1]: Nested virtualization is not supported by machine type {size}.")


def _check_scheduling(wanted: Mapping[str, Any]) -> None:
    lasts = wanted.get("maxRunDuration")
    if lasts is not None:
        if not SHORTEST_S <= int(lasts.get("seconds", "0")) <= LONGEST_S:
            raise invalid("resource.scheduling.maxRunDuration", lasts, "Must be between 30 seconds and 120 days.")
        if "instanceTerminationAction" not in wanted:
            raise invalid("resource.scheduling.instanceTerminationAction", "", "Must be set with maxRunDuration.")
    if wanted.get("provisioningModel") == "SPOT" and (
        wanted.get("automaticRestart") or wanted.get("onHostMaintenance", "TERMINATE") != "TERMINATE"
    ):
        raise invalid("resource.scheduling", "SPOT", "Spot machines neither restart nor migrate.")
