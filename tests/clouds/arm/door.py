"""Resource Manager's front door: who may come in, which resource is meant, and what is answered."""

import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

from tests.clouds.arm import rules, schema
from tests.clouds.arm.group import ADDRESS, DISK, NIC, VM, Group, Resource, view
from tests.clouds.cloud import Fault, Operation

Body = dict[str, Any]
MODELS = {
    VM: (compute, "VirtualMachine"),
    DISK: (compute, "Disk"),
    NIC: (network, "NetworkInterface"),
    ADDRESS: (network, "PublicIPAddress"),
}
_TYPES = {type.lower(): type for type in MODELS}
_GROUP = re.compile(
    r"/subscriptions/([^/]+)/resourcegroups/([^/]+)/providers/(microsoft\.\w+)/(\w+)(?:/([^/]+))?", re.I
)
_OPERATION = re.compile(
    r"/subscriptions/([^/]+)/providers/(microsoft\.\w+)/locations/\w+/operations/([-0-9a-f]+)", re.I
)
_METHODS = {"PUT": Operation.CREATE, "GET": Operation.GET, "LIST": Operation.LIST, "DELETE": Operation.TERMINATE}
SHAPES = {
    Fault.THROTTLED: (429, "TooManyRequests", "The request is being throttled.", {"Retry-After": "1"}),
    Fault.TRANSIENT: (500, "InternalServerError", "Encountered an internal server error.", {}),
    Fault.CAPACITY: (
        409,
        "SkuNotAvailable",
        "The requested VM size for resource is currently not available in this location and zone.",
        {},
    ),
    Fault.QUOTA: (
        409,
        "OperationNotAllowed",
        "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. "
        "Additional details - Deployment Model: Resource Manager, Current Limit: 10, Current Usage: 10.",
        {},
    ),
    Fault.AUTH: (403, "AuthorizationFailed", "The client does not have authorization to perform the action.", {}),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; with `cut`, nothing does, though all was done."""

    status: int
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class Door:
    """Answers every request of one subscription with one resource group."""

    def __init__(self, group: Group, known: rules.Known, token: str, page: int) -> None:
        self.group, self.known, self.token, self.page = group, known, token, page
        self.base = ""
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.faults: dict[Operation, deque[Fault]] = defaultdict(deque)
        self.refusals: dict[str, deque[Answer]] = defaultdict(deque)
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """What Azure would say; an answer that its own SDK's models do not know is the emulator's fault, a 500."""
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            said = refuse(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now.")
            return Answer(said.status, said.body, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if not re.fullmatch(r"20\d\d-\d\d-\d\d(-preview)?", (request.query.get("api-version") or [""])[0]):
            return refuse(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        polled = _OPERATION.fullmatch(request.path)
        if polled is not None:
            return self._operation(polled[3])
        parts = _GROUP.fullmatch(request.path)
        if parts is None or parts[4].lower() not in _TYPES:
            return refuse(404, "InvalidResourceType", f"The resource type could not be found: {request.path}")
        if parts[1] != self.group.subscription:
            return refuse(404, "SubscriptionNotFound", f"The subscription '{parts[1]}' could not be found.")
        if parts[2].lower() != self.group.name.lower():
            return refuse(404, "ResourceGroupNotFound", f"Resource group '{parts[2]}' could not be found.")
        return self._counted(request, _TYPES[parts[4].lower()], parts[5] or "")

    def _counted(self, request: Request, type: str, name: str) -> Answer:
        method = "LIST" if request.method == "GET" and not name else request.method
        call, operation = f"{type}.{method}", _METHODS.get(method)
        with self._lock:
            self.counted[call] += 1
            if self.refusals[call]:
                return self.refusals[call].popleft()
            main = operation is Operation.TERMINATE or type == VM
            fault = self.faults[operation].popleft() if operation and main and self.faults[operation] else None
        if fault in SHAPES:
            status, code, message, headers = SHAPES[fault]
            return refuse(status, code, message, headers)
        with self.group.lock:
            said = self._serve(request, method, type, name, fault)
        return Answer(said.status, said.body, said.headers, cut=fault is Fault.LOST)

    def _serve(self, request: Request, method: str, type: str, name: str, fault: Fault | None) -> Answer:
        if method == "LIST":
            return self._list(request, type, fault)
        found = self.group.find(type, name)
        if method == "DELETE":
            return self._delete(found, fault is Fault.LATE)
        if method == "GET":
            if found is None or found.read_at > time.monotonic():
                words = f"The Resource '{type}/{name}' under resource group '{self.group.name}' was not found."
                return refuse(404, "ResourceNotFound", words)
            return Answer(
                200, self._shown(found, view(found) if "instanceView" in request.query.get("$expand", []) else None)
            )
        if method == "PUT" and type == VM:
            return self._put(request, name, found, fault is Fault.LATE)
        return refuse(405, "MethodNotAllowed", f"{method} {type} is not emulated.")

    def _put(self, request: Request, name: str, found: Resource | None, late: bool) -> Answer:
        wrong = schema.problems(*MODELS[VM], request.body, request=True)
        if wrong:
            return refuse(400, "InvalidRequestContent", f"The request content was invalid: {'; '.join(wrong)}")
        if found is not None and request.headers.get("If-None-Match") == "*":
            return refuse(
                412, "PreconditionFailed", f"The precondition given in the request is not met: '{name}' exists."
            )
        refused = next(rules.refusals(name, request.body, self.known), None)
        if refused is None and found is not None:
            refused = next(rules.changes(found.body, request.body), None)
        if refused is not None:
            return refuse(*refused)
        if found is not None:
            found.body["tags"] = request.body.get("tags") or {}
            found.body["properties"]["hardwareProfile"] = request.body["properties"]["hardwareProfile"]
            return Answer(200, self._shown(found))
        machine, operation = self.group.make(name, request.body, late)
        return Answer(201, self._shown(machine), self._polling(machine, operation))

    def _delete(self, found: Resource | None, late: bool) -> Answer:
        if found is None:
            return Answer(204)
        about = found.body["properties"]
        if found.type == NIC and "virtualMachine" in about:
            return refuse(400, "NicInUse", f"Network Interface {found.id} is used by an existing resource.")
        if found.type == NIC and found.reserved_until > time.monotonic():
            words = "Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Retry after that."
            return refuse(400, "NicReservedForAnotherVm", words)
        if found.type == DISK and found.body.get("managedBy"):
            return refuse(409, "OperationNotAllowed", f"Disk {found.name} is attached to VM {found.body['managedBy']}.")
        if found.type == ADDRESS and about.get("ipConfiguration"):
            return refuse(400, "PublicIPAddressCannotBeDeleted", f"{found.name} is allocated to a resource.")
        return Answer(202, None, self._polling(found, self.group.end(found, late)))

    def _list(self, request: Request, type: str, fault: Fault | None) -> Answer:
        now = time.monotonic()
        seen = [] if fault is Fault.LATE else [one for one in self.group.of(type) if one.listed_at <= now]
        start = int((request.query.get("$skipToken") or ["0"])[0])
        body: Body = {"value": [self._shown(one) or {} for one in seen[start : start + self.page]]}
        if start + self.page < len(seen):
            version = request.query["api-version"][0]
            body["nextLink"] = f"{self.base}{request.path}?api-version={version}&$skipToken={start + self.page}"
        return Answer(200, body)

    def _shown(self, resource: Resource, instance: Body | None = None) -> Body:
        body = dict(resource.body)
        if instance is not None and resource.type == VM:
            body["properties"] = body["properties"] | {"instanceView": instance}
        wrong = schema.problems(*MODELS[resource.type], body, request=False)
        if wrong:
            self.wrong.append(f"{resource.id}: {'; '.join(wrong)}")
        return body

    def _operation(self, id: str) -> Answer:
        self.counted["operations.GET"] += 1
        found = self.group.operations.get(id)
        if found is None:
            return refuse(404, "OperationNotFound", f"The operation '{id}' was not found.")
        body: Body = {"name": id, "status": found.status}
        if found.error is not None:
            body["error"] = {"code": found.error.code, "message": found.error.message}
        return Answer(200, body, {"Retry-After": "0"})

    def _polling(self, resource: Resource, operation: str) -> dict[str, str]:
        space = "Microsoft.Network" if resource.type in {NIC, ADDRESS} else "Microsoft.Compute"
        where = f"{self.base}/subscriptions/{self.group.subscription}/providers/{space}/locations/{self.group.region}"
        return {"Azure-AsyncOperation": f"{where}/operations/{operation}?api-version=2026-04-01", "Retry-After": "0"}


def refuse(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in Azure's shape."""
    body = {"error": {"code": code, "message": message}}
    assert not schema.problems(compute, "CloudError", body, request=False)
    return Answer(status, body, headers or {})
