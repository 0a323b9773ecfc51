"""One resource group: what exists in it, and what a machine's making, failing and end do to the rest."""

import base64
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.clouds.arm.later import Later
from tests.clouds.cloud import Held, Machine

Body = dict[str, Any]
VM, DISK, NIC, ADDRESS = "virtualMachines", "disks", "networkInterfaces", "publicIPAddresses"
SPACES = {VM: "Microsoft.Compute", DISK: "Microsoft.Compute", NIC: "Microsoft.Network", ADDRESS: "Microsoft.Network"}
KINDS = {VM: "host", DISK: "disk", NIC: "nic", ADDRESS: "address"}


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: how long things take, and for how long they are not seen or not free."""

    boot: float = 0.15
    end: float = 0.1
    listed: float = 0.2  # a new interface or disk is in no list until then
    late: float = 0.5
    reserved: float = 0.5  # 180 at Azure


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a machine that was accepted never comes up."""

    code: str
    message: str


@dataclass(slots=True)
class Resource:
    """One resource, with its body as it is answered; times are monotonic."""

    type: str
    name: str
    id: str
    body: Body
    read_at: float = 0.0
    listed_at: float = 0.0
    reserved_until: float = 0.0
    owner: str = ""  # the machine's name
    dies: bool = False  # with its machine
    booted: bool = False
    ending: bool = False
    power: str = "running"
    user_data: str = ""
    failure: Failure | None = None


@dataclass(slots=True)
class Operation:
    """A long-running operation, for those who poll it."""

    status: str = "InProgress"
    error: Failure | None = None


@dataclass(slots=True)
class Habits:
    """What differs at Azure from day to day; tests choose."""

    disk_inherits_tags: bool = True
    leaks_interface: bool = False  # of a failed machine, whose end then leaves it behind
    slow_look_ups: bool = False  # a `late` machine is not seen by its name either
    interface_suffix: str = ""
    fail_next: list[Failure] = field(default_factory=list)


class Group:
    """All methods may be called from any thread; hooks are called from the emulator's own."""

    def __init__(self, subscription: str, name: str, region: str, times: Times, later: Later) -> None:
        self.subscription, self.name, self.region, self.times = subscription, name, region, times
        self.habits = Habits()
        self.lock = threading.RLock()
        self.operations: dict[str, Operation] = {}
        self.on_boot: Callable[[Machine], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self._later = later
        self._all: dict[tuple[str, str], Resource] = {}

    # Reading

    def find(self, type: str, name: str) -> Resource | None:
        """What exists, seen or not."""
        return self._all.get((type, name.lower()))

    def of(self, type: str) -> list[Resource]:
        """All of a type, oldest first."""
        return [one for one in self._all.values() if one.type == type]

    def catch_up(self, free: bool) -> None:
        """From now on everything is seen; with `free`, no interface is reserved any more."""
        with self.lock:
            for one in self._all.values():
                one.read_at = one.listed_at = 0.0
                one.reserved_until = 0.0 if free else one.reserved_until

    def attach(self, resource: Resource, machine: str) -> None:
        """Somebody gives a disk or an interface to a machine."""
        with self.lock:
            resource.owner = machine
            if resource.type == DISK:
                resource.body["managedBy"] = self._shouted(VM, machine)
            else:
                resource.body["properties"]["virtualMachine"] = {"id": self._shouted(VM, machine)}

    def held(self) -> tuple[Held, ...]:
        """All that exists."""
        with self.lock:
            return tuple(
                Held(KINDS[one.type], one.id, _zone(one.body), dict(one.body.get("tags") or {}))
                for one in self._all.values()
            )

    def id(self, type: str, name: str) -> str:
        """The id as Azure's front door spells it."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}/providers/{SPACES[type]}/{type}/{name}"

    def _shouted(self, type: str, name: str) -> str:
        # References between Azure's own services come with the group in capitals.
        return self.id(type, name).replace(f"/{self.name}/", f"/{self.name.upper()}/")

    # Making

    def add(self, type: str, name: str, tags: dict[str, str], properties: Body, **top: Any) -> Resource:
        """A resource that is there at once, and seen by all."""
        body = {
            "id": self.id(type, name),
            "name": name,
            "type": f"{SPACES[type]}/{type}",
            "location": self.region,
            "tags": tags,
            "properties": properties,
        } | {key: value for key, value in top.items() if value}
        with self.lock:
            self._all[(type, name.lower())] = resource = Resource(type, name, body["id"], body)
        return resource

    def make(self, name: str, wanted: Body, late: bool) -> tuple[Resource, str]:
        """Accept a machine: it is `Creating`, disk and interface exist, and it boots later; the operation's id."""
        with self.lock:
            asked, system = wanted["properties"], wanted["properties"]["osProfile"]
            interfaces = [
                self._interface(name, one) for one in asked["networkProfile"]["networkInterfaceConfigurations"]
            ]
            shown = {key: value for key, value in asked.items() if value is not None} | {
                "provisioningState": "Creating",
                "vmId": str(uuid.uuid4()),
                "timeCreated": _now(),
                "osProfile": {
                    key: value for key, value in system.items() if key not in {"customData", "adminPassword"}
                },
                "networkProfile": {"networkInterfaces": interfaces},
            }
            machine = self.add(
                VM, name, wanted.get("tags") or {}, shown, zones=wanted.get("zones"), identity=_identity(wanted)
            )
            machine.user_data = base64.b64decode(system.get("customData") or "").decode()
            machine.failure = self.habits.fail_next.pop(0) if self.habits.fail_next else None
            self._disk(machine)
            if late:
                seen = time.monotonic() + self.times.late
                for one in (machine, *self._of(machine)):
                    one.listed_at, one.read_at = seen, seen if self.habits.slow_look_ups else 0.0
            operation = self._operation()
        self._later.call(self.times.boot, lambda: self._made(machine, operation))
        return machine, operation

    def _interface(self, machine: str, wanted: Body) -> Body:
        name = f"{wanted['name']}{self.habits.interface_suffix}"
        option = wanted["properties"].get("deleteOption", "Detach")
        addresses = [
            {"name": one["name"], "properties": {"primary": True, "subnet": one["properties"]["subnet"]}}
            for one in wanted["properties"]["ipConfigurations"]
        ]
        about = {
            "provisioningState": "Succeeded",
            "ipConfigurations": addresses,
            "virtualMachine": {"id": self._shouted(VM, machine)},
        }
        nic = self.add(NIC, name, wanted.get("tags") or {}, about)
        nic.owner, nic.dies, nic.listed_at = machine, option == "Delete", time.monotonic() + self.times.listed
        return {"id": nic.id, "properties": {"primary": True, "deleteOption": option}}

    def _made(self, machine: Resource, operation: str) -> None:
        with self.lock:
            if machine.ending or self.find(VM, machine.name) is not machine:
                self.operations[operation] = Operation("Canceled", Failure("OperationPreempted", "it was deleted"))
                return
            about = machine.body["properties"]
            if machine.failure is not None:
                about["provisioningState"] = "Failed"
                for nic in (one for one in self._of(machine) if one.type == NIC):
                    nic.reserved_until = time.monotonic() + self.times.reserved
                self.operations[operation] = Operation("Failed", machine.failure)
                return
            about["provisioningState"], machine.booted = "Succeeded", True
            self.operations[operation] = Operation("Succeeded")
            told = Machine(machine.id, machine.name, _zone(machine.body), machine.body["tags"], machine.user_data)
        if self.on_boot is not None:
            self.on_boot(told)

    def _disk(self, machine: Resource) -> None:
        wanted = machine.body["properties"]["storageProfile"]["osDisk"]
        tags = dict(machine.body["tags"]) if self.habits.disk_inherits_tags else {}
        about = {
            "creationData": {"createOption": "FromImage"},
            "provisioningState": "Succeeded",
            "diskState": "Attached",
            "diskSizeGB": wanted.get("diskSizeGB", 30),
            "timeCreated": _now(),
        }
        owner = self._shouted(VM, machine.name)
        disk = self.add(DISK, wanted["name"], tags, about, managedBy=owner, zones=machine.body.get("zones"))
        disk.owner, disk.dies = machine.name, wanted.get("deleteOption", "Detach") == "Delete"
        disk.listed_at = time.monotonic() + self.times.listed

    # Ending

    def end(self, resource: Resource, late: bool) -> str:
        """Begin the end of what may end; the operation's id."""
        with self.lock:
            resource.body["properties"]["provisioningState"] = "Deleting"
            resource.ending = True
            operation = self._operation()
            wait = self.times.end + (self.times.late if late else 0.0)
            if resource.type == VM and not self.habits.leaks_interface:
                promised = max((one.reserved_until for one in self._of(resource)), default=0.0)
                wait = max(wait, promised - time.monotonic())
        self._later.call(wait, lambda: self._ended(resource, operation))
        return operation

    def _ended(self, resource: Resource, operation: str) -> None:
        with self.lock:
            self.operations[operation] = Operation("Succeeded")
            if self._all.pop((resource.type, resource.name.lower()), None) is None:
                return
            for one in self._of(resource):
                if one.dies and one.reserved_until <= time.monotonic():
                    self._all.pop((one.type, one.name.lower()))
                else:
                    one.owner = ""
                    one.body.pop("managedBy", None)
                    one.body["properties"].pop("virtualMachine", None)
        if resource.booted and self.on_end is not None:
            self.on_end(resource.id)

    def _of(self, machine: Resource) -> list[Resource]:
        return [one for one in self._all.values() if one.owner and one.owner == machine.name and machine.type == VM]

    def _operation(self) -> str:
        id = str(uuid.uuid4())
        self.operations[id] = Operation()
        return id


def view(machine: Resource) -> Body:
    """A machine's instance view: how its making went, and its power."""
    state = machine.body["properties"]["provisioningState"]
    if state == "Failed" and machine.failure is not None:
        code, message = f"ProvisioningState/failed/{machine.failure.code}", machine.failure.message
        return {
            "statuses": [{"code": code, "level": "Error", "displayStatus": "Provisioning failed", "message": message}]
        }
    statuses = [
        {"code": f"ProvisioningState/{state.lower()}", "level": "Info", "displayStatus": f"Provisioning {state}"}
    ]
    if machine.booted and not machine.ending:
        power = {"code": f"PowerState/{machine.power}", "level": "Info", "displayStatus": f"VM {machine.power}"}
        statuses.append(power)
    return {"statuses": statuses}


def _zone(body: Body) -> str:
    zones = body.get("zones") or [""]
    return str(zones[0])


def _identity(wanted: Body) -> Body | None:
    asked = wanted.get("identity")
    if not asked:
        return None
    own = {"clientId": str(uuid.uuid4()), "principalId": str(uuid.uuid4())}
    return {"type": asked["type"], "userAssignedIdentities": dict.fromkeys(asked["userAssignedIdentities"], own)}


def _now() -> str:
    return datetime.now(UTC).isoformat()
