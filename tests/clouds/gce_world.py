"""The state behind the emulated Google Cloud: machines, disks, addresses, operations, and time that moves them on."""

import heapq
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tests.clouds.gce_rules import PROJECT, Project, Refusal, check_insert, check_request_id, has_vmx, not_found

ROOT = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}"
PACIFIC = timezone(timedelta(hours=-8))  # in which Google gives its times
Body = dict[str, Any]


@dataclass(slots=True)
class Vm:
    """A machine: `body` is what Google shows of it, the rest what it does not say."""

    body: Body
    zone: str
    vmx: bool
    visible_at: float = 0.0
    booted: bool = False
    ending: bool = False
    stale: bool = False  # its end is not seen by reads
    hidden: bool = False  # 404 to reads while it still lives

    @property
    def name(self) -> str:
        """Its name, one of its kind in the zone."""
        return str(self.body["name"])

    @property
    def shown(self) -> bool:
        """Whether reads see it now."""
        return not self.hidden and time.monotonic() >= self.visible_at


@dataclass(frozen=True, slots=True)
class Failing:
    """How a creation fails in its operation; `leave_disk`: and its boot disk stays."""

    code: str
    text: str
    status: int
    leave_disk: bool = False


class Timeline:
    """Runs what is due, in order, on one thread, and holds `lock` meanwhile."""

    def __init__(self, lock: threading.RLock) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._closed = False
        self._lock = lock
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="gce-time", daemon=True)
        self._thread.start()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """`action` runs that much later, unless the timeline is closed before."""
        with self._changed:
            self._number += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._number, action))
            self._changed.notify()

    def close(self) -> None:
        """Nothing runs any more once this returns."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(10)

    def _run(self) -> None:
        while (action := self._next()) is not None:
            with self._lock:
                action()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)
            return None


class World:
    """All of one project. Every method wants `lock` held; `pace` is the seconds of each step in a machine's life."""

    def __init__(self, pace: float, booted: Callable[[Vm], None], ended: Callable[[Vm], None]) -> None:
        self.lock = threading.RLock()
        self.project = Project()
        self.vms: dict[tuple[str, str], Vm] = {}
        self.disks: dict[tuple[str, str], Body] = {}
        self.addresses: dict[tuple[str, str], Body] = {}
        self.operations: dict[tuple[str, str], Body] = {}
        self._asked: dict[str, Body] = {}
        self._pace, self._booted, self._ended = pace, booted, ended
        self.timeline = Timeline(self.lock)

    # Machines

    def insert(self, zone: str, body: Body, request_id: str, failing: Failing | None, late_s: float) -> Body:
        """compute.instances.insert: the same operation for the same request."""
        check_request_id(request_id)
        if request_id in self._asked:
            return self._asked[request_id]
        check_insert(self.project, zone, body)
        self._check_free(zone, "instances", self.vms, body["name"])
        for disk in body["disks"]:
            self._check_free(zone, "disks", self.disks, disk_name(body["name"], disk))
        vm = self.build(zone, body)
        vm.visible_at = time.monotonic() + late_s
        operation = self._operation("insert", f"zones/{zone}", f"instances/{vm.name}", vm.body["id"], request_id)
        self._after(1, lambda: _started(operation))
        self._after(2, lambda: self._fail(vm, operation, failing) if failing else self._stage(vm))
        if failing is None:
            self._after(3, lambda: self._boot(vm, operation))
        return operation

    def _check_free(self, zone: str, kind: str, there: Mapping[tuple[str, str], object], name: str) -> None:
        if (zone, name) in there:
            link = f"projects/{PROJECT}/zones/{zone}/{kind}/{name}"
            raise Refusal(409, "alreadyExists", f"The resource '{link}' already exists")

    def build(self, zone: str, body: Body, status: str = "PROVISIONING") -> Vm:
        """A machine and its disks, as they are from their first moment."""
        name, size = body["name"], body["machineType"].rpartition("/")[2]
        shown = self._resource("instance", f"zones/{zone}", f"instances/{name}") | {
            "zone": f"{ROOT}/zones/{zone}",
            "machineType": f"{ROOT}/zones/{zone}/machineTypes/{size}",
            "status": status,
            "labels": dict(body.get("labels", {})),
            "labelFingerprint": "42WmSpB8rSM=",
            "metadata": {"kind": "compute#metadata", "fingerprint": "42WmSpB8rSM=", **body.get("metadata", {})},
            "scheduling": dict(body.get("scheduling", {})),
            "disks": [self._disk(zone, name, one) for one in body.get("disks", [])],
            "networkInterfaces": [
                {"kind": "compute#networkInterface", "name": f"nic{at}", "networkIP": "10.0.0.2", **one}
                for at, one in enumerate(body.get("networkInterfaces", []))
            ],
        }
        for field in ("advancedMachineFeatures", "minCpuPlatform", "serviceAccounts"):
            if field in body:
                shown[field] = body[field]
        vm = self.vms[zone, name] = Vm(shown, zone, has_vmx(size, body))
        return vm

    def delete(self, zone: str, name: str, *, late: bool = False, user: str = "paddock") -> Body:
        """compute.instances.delete: while an earlier one still runs, Google says 404 although the machine lives."""
        vm = self.vms.get((zone, name))
        if vm is None or vm.ending:
            raise not_found(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        vm.ending, vm.stale = True, late
        if not late:
            vm.body["status"] = "STOPPING"
        operation = self._operation("delete", f"zones/{zone}", f"instances/{name}", vm.body["id"], "", user)
        self._after(1, lambda: _started(operation))
        self._after(2, lambda: _hide(vm))
        self._after(3, lambda: self._end(vm, operation))
        return operation

    def _stage(self, vm: Vm) -> None:
        if not vm.ending:
            vm.body["status"] = "STAGING"

    def _boot(self, vm: Vm, operation: Body) -> None:
        _done(operation)
        if vm.ending:
            return
        vm.body |= {"status": "RUNNING", "lastStartTimestamp": _now(), "cpuPlatform": "Intel Ice Lake"}
        vm.booted = True
        self._booted(vm)
        lasts = vm.body["scheduling"].get("maxRunDuration")
        if lasts is not None:
            self.timeline.after(float(lasts["seconds"]), lambda: self._expire(vm))

    def _expire(self, vm: Vm) -> None:
        if self.vms.get((vm.zone, vm.name)) is vm and not vm.ending:
            self.delete(vm.zone, vm.name, user="system")

    def _fail(self, vm: Vm, operation: Body, failing: Failing) -> None:
        error = {"code": failing.code, "message": failing.text}
        operation |= {"error": {"errors": [error]}, "httpErrorStatusCode": failing.status}
        operation["httpErrorMessage"] = failing.code.replace("_", " ")
        _done(operation)
        if not vm.ending:
            self._take_away(vm, leave_disks=failing.leave_disk)

    def _end(self, vm: Vm, operation: Body) -> None:
        self._take_away(vm)
        _done(operation)
        if vm.booted:
            self._ended(vm)

    def _take_away(self, vm: Vm, *, leave_disks: bool = False) -> None:
        self.vms.pop((vm.zone, vm.name), None)
        for attached in vm.body["disks"]:
            key = (vm.zone, attached["source"].rpartition("/")[2])
            if attached.get("autoDelete") and not leave_disks:
                self.disks.pop(key, None)
            elif key in self.disks:
                self.disks[key].pop("users", None)

    # What may lie beside machines

    def _disk(self, zone: str, host: str, wanted: Body) -> Body:
        """A disk of a new machine; what the machine's body shows of it."""
        ask = wanted.get("initializeParams", {})
        disk = self.add_disk(zone, disk_name(host, wanted), ask.get("labels", {}), ask.get("diskSizeGb", "10"))
        disk["users"] = [f"{ROOT}/zones/{zone}/instances/{host}"]
        return {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": "READ_WRITE",
            "source": disk["selfLink"],
            "boot": wanted.get("boot", False),
            "autoDelete": wanted.get("autoDelete", False),
            "diskSizeGb": disk["sizeGb"],
        }

    def add_disk(self, zone: str, name: str, labels: Mapping[str, str], size: str = "10") -> Body:
        """A disk that is there at once."""
        disk = self._resource("disk", f"zones/{zone}", f"disks/{name}")
        disk |= {"zone": f"{ROOT}/zones/{zone}", "labels": dict(labels), "sizeGb": size, "status": "READY"}
        self.disks[zone, name] = disk
        return disk

    def add_address(self, region: str, name: str, labels: Mapping[str, str]) -> Body:
        """A reserved address of a region, or with `global` of none."""
        scope = "global" if region == "global" else f"regions/{region}"
        address = self._resource("address", scope, f"addresses/{name}")
        address |= {"labels": dict(labels), "status": "RESERVED", "address": "203.0.113.7"}
        if region != "global":
            address["region"] = f"{ROOT}/regions/{region}"
        self.addresses[region, name] = address
        return address

    def drop(self, there: dict[tuple[str, str], Body], place: str, kind: str, name: str) -> Body:
        """The end of a disk or an address, in an operation that takes a while."""
        scope = {"disks": f"zones/{place}", "addresses": "global" if place == "global" else f"regions/{place}"}[kind]
        resource = there.get((place, name))
        if resource is None:
            raise not_found(f"projects/{PROJECT}/{scope}/{kind}/{name}")
        if resource.get("users"):
            words = (
                f"The {kind[:-1]} resource '{resource['selfLink']}' is already being used by '{resource['users'][0]}'"
            )
            raise Refusal(400, "resourceInUseByAnotherResource", words)
        operation = self._operation("delete", scope, f"{kind}/{name}", resource["id"], "")
        self._after(1, lambda: _started(operation))
        self._after(2, lambda: (there.pop((place, name), None), _done(operation), None)[2])
        return operation

    # Operations

    def _operation(
        self, kind: str, scope: str, target: str, target_id: str, request_id: str, user: str = "paddock"
    ) -> Body:
        name = f"operation-{uuid.uuid4().hex}"
        operation = self._resource("operation", scope, f"operations/{name}")
        del operation["creationTimestamp"]
        operation |= {
            "operationType": kind,
            "targetLink": f"{ROOT}/{scope}/{target}",
            "targetId": target_id,
            "status": "PENDING",
            "progress": 0,
            "insertTime": _now(),
            "user": f"{user}@{PROJECT}.iam.gserviceaccount.com",
        }
        if "/" in scope:
            operation[scope.partition("/")[0].rstrip("s")] = f"{ROOT}/{scope}"
        if request_id:
            operation["clientOperationId"] = request_id
            self._asked[request_id] = operation
        self.operations[scope.rpartition("/")[2], name] = operation
        return operation

    def _after(self, steps: int, action: Callable[[], None]) -> None:
        self.timeline.after(steps * self._pace, action)

    def _resource(self, kind: str, scope: str, path: str) -> Body:
        return {
            "kind": f"compute#{kind}",
            "id": str(uuid.uuid4().int >> 65),
            "name": path.rpartition("/")[2],
            "selfLink": f"{ROOT}/{scope}/{path}",
            "creationTimestamp": _now(),
        }


def disk_name(host: str, wanted: Body) -> str:
    """What a new machine's disk is called: like the machine, unless the request says otherwise."""
    return str(wanted.get("initializeParams", {}).get("diskName", host))


def scopes(project: Project, kind: str) -> Iterator[str]:
    """Every scope of an aggregated list; Google names those without a result too."""
    if kind == "addresses":
        yield "global"
        yield from (f"regions/{one}" for one in sorted(project.regions))
        return
    yield from (f"zones/{one}" for one in project.zones)


def _started(operation: Body) -> None:
    if operation["status"] == "PENDING":
        operation |= {"status": "RUNNING", "startTime": _now()}


def _done(operation: Body) -> None:
    operation |= {"status": "DONE", "progress": 100, "endTime": _now()}


def _hide(vm: Vm) -> None:
    vm.hidden = not vm.stale


def _now() -> str:
    return datetime.now(UTC).astimezone(PACIFIC).isoformat(timespec="milliseconds")
