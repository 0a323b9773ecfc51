"""What exists in an emulated AWS account: moto's own state, given the real one's delays."""

import base64
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import StateReason

from providers.aws import AwsGround, AwsKeys, AwsRegion
from tests.clouds.cloud import Held, Machine
from tests.clouds.ec2_wire import Request

KEYS = AwsKeys("AKIAEMULATED00000001", "emulated-secret-key-that-no-text-may-hold")
ZONES = ("us-east-1a", "us-east-1b", "eu-west-1a")
REGIONS = ("us-east-1", "eu-west-1")
SIZE = "m8i.large"
# moto keeps its state for the whole process, by account.
NUMBERS = itertools.count(100_000_000_001)


class Account:
    """Instances are `pending` for `boot_s`, `shutting-down` for `end_s`, and told of from a thread of their own.

    Every method but `close` wants the lock held, as moto is not safe between threads.
    """

    def __init__(self, boot_s: float, end_s: float, booted: Callable[[Machine], None], ended: Callable[[str], None]):
        self.boot_s, self.end_s = boot_s, end_s
        self.booted, self.ended = booted, ended
        self.number = str(next(NUMBERS))
        self.lock = threading.RLock()
        self.nested: dict[str, str] = {}
        self._backends = ec2_backends[self.number]
        self._seen_at: dict[str, float] = {}
        self._timers: set[threading.Timer] = set()
        self._closed = False

    def backend(self, region: str) -> Any:
        return self._backends[region]

    def ground(self, endpoint: str, settle_s: float) -> AwsGround:
        """The default network of each region, and an image of it."""
        regions = []
        for name in REGIONS:
            backend = self.backend(name)
            subnets = backend.get_default_subnets()
            image = next(ami for ami in backend.amis.values() if not ami.platform and ami.architecture == "x86_64")
            group = next(one.id for one in backend.describe_security_groups() if one.name == "default")
            zones = {zone: subnets[zone].id for zone in ZONES if zone.startswith(name)}
            regions.append(AwsRegion(name, image.id, zones, (group,)))
        return AwsGround(tuple(regions), keys=KEYS, endpoint_url=endpoint, settle_s=settle_s)

    def boot(self, region: str, id: str, request: Request) -> None:
        """What moto leaves out of a launch, and the time that one takes."""
        instance = self.backend(region).get_instance(id)
        for nic in instance.nics.values():
            nic.add_tags(request.tags().get("network-interface", {}))
        if "CpuOptions.NestedVirtualization" in request.form:
            self.nested[id] = request.form["CpuOptions.NestedVirtualization"]
        _be(instance, "pending", 0)
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        user_data = base64.b64decode(request.form.get("UserData", "")).decode()
        machine = Machine(id, tags.get("Name", ""), instance.availability_zone, tags, user_data)

        def running() -> None:
            with self.lock:
                if instance.state != "pending":
                    return
                _be(instance, "running", 16)
            self.booted(machine)

        self._later(self.boot_s, running)

    def hide(self, ids: Iterable[str], seconds: float) -> None:
        self._seen_at |= dict.fromkeys(ids, time.monotonic() + seconds)

    def hidden(self) -> set[str]:
        now = time.monotonic()
        return {id for id, at in self._seen_at.items() if now < at}

    def end(self, instance: Any, reason: StateReason | None = None) -> None:
        """Once begun it goes on; what shall not die with the machine stays."""
        if instance.state in {"shutting-down", "terminated"}:
            return
        instance.terminate()
        for nic in list(instance.nics.values()):
            if not nic.delete_on_termination:  # not moto's detach: it cannot show an instance without its interface
                nic.instance, nic.attachment_id, nic.status = None, None, "available"
        _be(instance, "shutting-down", 32)
        instance.state_reason = reason or instance.state_reason

        def terminated() -> None:
            with self.lock:
                _be(instance, "terminated", 48)
            self.ended(instance.id)

        self._later(self.end_s, terminated)

    def instance(self, id: str) -> Any:
        """In any region. Raises KeyError."""
        known = {one.id: one for region in REGIONS for one in self.backend(region).all_instances()}
        return known[id]

    def plant(self, kind: str, tags: Mapping[str, str]) -> str:
        """In the first zone, and by nobody's call."""
        zone, backend = ZONES[0], self.backend(REGIONS[0])
        subnet = backend.get_default_subnets()[zone]
        if kind == "host":
            made = self._plant_host(backend, subnet)
        elif kind == "disk":
            made = backend.create_volume(size=1, zone_name=zone)
        elif kind == "nic":
            made = backend.create_network_interface(subnet, [])
        elif kind == "address":
            made = backend.allocate_address("vpc")
        else:
            raise ValueError(f"kind {kind!r}: host, disk, nic and address can be planted")
        id = str(made.allocation_id if kind == "address" else made.id)
        backend.create_tags([id], dict(tags))
        return id

    def held(self) -> Iterable[Held]:
        for region in REGIONS:
            backend = self.backend(region)
            found: list[tuple[str, str, str]] = [
                ("host", one.id, one.availability_zone) for one in backend.all_instances() if one.state != "terminated"
            ]
            found += [("disk", one.id, one.zone.name) for one in backend.volumes.values()]
            found += [("nic", one.id, one.subnet.availability_zone) for one in backend.enis.values()]
            found += [("address", one.allocation_id, region) for one in backend.addresses]
            yield from (Held(kind, id, zone, dict(backend.tags.get(id, {}))) for kind, id, zone in found)

    def close(self) -> None:
        """No timer is left, and moto forgets the account."""
        with self.lock:
            self._closed = True
            timers = list(self._timers)
        for timer in timers:
            timer.cancel()
            timer.join()
        ec2_backends.pop(self.number, None)

    def _plant_host(self, backend: Any, subnet: Any) -> Any:
        image = next(iter(backend.amis))
        nics = [{"DeviceIndex": "0", "SubnetId": subnet.id, "DeleteOnTermination": True}]
        chosen = {"instance_type": SIZE, "is_instance_type_default": False, "region_name": REGIONS[0], "nics": nics}
        return backend.run_instances(image, 1, None, [], **chosen).instances[0]

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            try:
                act()
            finally:
                with self.lock:
                    self._timers.discard(timer)

        timer = threading.Timer(seconds, run)
        if not self._closed:
            self._timers.add(timer)
            timer.start()


def _be(instance: Any, name: str, code: int) -> None:
    instance._state.name, instance._state.code = name, code
