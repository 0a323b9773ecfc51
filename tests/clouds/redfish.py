"""Racks of machines behind sushy-tools' Redfish emulator, with faults, hooks and what a boot service hands out."""

import importlib.util
import itertools
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from uuid import uuid4

import bcrypt
import yaml
from werkzeug.serving import WSGIRequestHandler, make_server

from providers.contract import ErrorClass, ProviderError
from providers.onprem import OnPrem, OnPremGround
from providers.onprem.claims import Claim, Claims, State, Wanted
from tests.clouds.cloud import Fault, Held, Machine, Operation
from tests.clouds.rack import LATE_S, PLAIN, SIZE, UNITS, Faults, Front, Rack, Unit, unit_of


@dataclass(frozen=True)
class _Store(Claims):
    """The real claims; for a fault of capacity, other controllers take every machine right before."""

    faults: Faults = field(default_factory=Faults)

    def claim(self, machines: Sequence[tuple[str, str]], wanted: Wanted) -> Claim:
        if not self.faults.take([Operation.CREATE], only=Fault.CAPACITY):
            return super().claim(machines, wanted)
        taken: list[Claim] = []
        try:
            while True:
                taken.append(super().claim(machines, _stranger({"paddock-controller": "stranger"})))
        except ProviderError as full:
            if full.kind is not ErrorClass.CAPACITY:
                raise
        try:
            return super().claim(machines, wanted)
        finally:
            for one in taken:
                self.release(one)


def _stranger(tags: Mapping[str, str]) -> Wanted:
    token = str(uuid4())
    return Wanted(token, f"planted-{token[:8]}", SIZE, "", "", "", dict(tags))


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """No line for each request among the tests' output."""


class Redfish:
    """Two racks of fourteen machines behind one address, and the on-prem provider that runs them.

    Faults: a `get` and a `list` share their request, so a fault of the one falls on the next of both; `late` slows the
    next change of power. On-prem machines have no quota.
    """

    name = "onprem"
    zones = ("rack1", "rack2")
    size, size_without_kvm = SIZE, PLAIN

    def __init__(
        self, *, ssl: Any = None, ca: Path | None = None, settle_s: float = LATE_S + 0.5, boot_s: float = 20
    ) -> None:
        self.on_boot: Callable[[Machine], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="redfish-"))
        self.password = f"s3cret-{uuid4().hex}"
        self.wiped: list[str] = []
        self._faults = Faults()
        self._events: queue.SimpleQueue[tuple[Unit, Machine | None] | None] = queue.SimpleQueue()
        ground = OnPremGround(
            self.folder / "inventory.yaml", self.folder / "claims.db", self.folder / "boot",
            connect_s=2, read_s=10, settle_s=settle_s, boot_s=boot_s,
        )  # fmt: skip
        self.claims = _Store(ground.claims, faults=self._faults)
        app = self._application()
        self.rack: Rack = app.systems
        self.front = Front(app.wsgi_app, self._faults, lambda: self.rack)
        self._server = make_server("127.0.0.1", 0, self.front, threaded=True, request_handler=_Quiet, ssl_context=ssl)
        self.endpoint = f"{'https' if ssl else 'http'}://127.0.0.1:{self._server.server_port}"
        self.ca = ca
        self.write()
        self.provider = OnPrem(ground, self.claims)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="redfish"),
            threading.Thread(target=self._tell, name="redfish-hooks"),
        ]
        for thread in self._threads:
            thread.start()

    def _application(self) -> Any:
        """An application of its own: the emulator's module holds one for the whole process."""
        spec = importlib.util.find_spec("sushy_tools.emulator.main")
        assert spec is not None
        assert spec.loader is not None
        main: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(main)
        main.fakedriver = SimpleNamespace(FakeDriver=Rack.telling(self._switched))
        users = self.folder / "users"
        users.write_text(f"paddock:{bcrypt.hashpw(self.password.encode(), bcrypt.gensalt(4)).decode()}\n")
        systems = [{"uuid": one.system, "name": one.name, "power_state": "Off", "nics": []} for one in UNITS]
        settings = {
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(self.folder / "state"),
            "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
            "SUSHY_EMULATOR_AUTH_FILE": str(users),
        }
        main.app.configure(extra_config=settings)
        return main.app

    def write(self, machines: Mapping[str, Mapping[str, object]] | None = None, **site: object) -> None:
        """The inventory anew, with these changes to the file and to single machines."""
        for name, text in (("user", "paddock"), ("password", self.password)):
            (self.folder / name).write_text(f"{text}\n")
        listed = [
            {"name": one.name, "bmc": self.endpoint, "system": one.system, "size": one.size, "zone": one.zone,
             "vcpu": 8 if one.size == SIZE else 4, "memory_mib": 32768, "credentials": "racks",
             "kvm": "metal" if one.size == SIZE else "none", "price_per_hour": 0.5}
            | dict((machines or {}).get(one.name, {}))
            for one in UNITS
        ]  # fmt: skip
        credentials = {"racks": {"username": {"file": "user"}, "password": {"file": "password"}}}
        site = {"currency": "USD", "prices_as_of": "2026-11-01"} | ({"ca": str(self.ca)} if self.ca else {}) | site
        text = yaml.safe_dump({"credentials": credentials, "machines": listed} | site, sort_keys=False)
        (self.folder / "inventory.yaml").write_text(text)

    # Power and boots

    def press(self, machine: str, what: Literal["On", "ForceOff", "ForceRestart"]) -> None:
        """A person at the machine, without Paddock."""
        self.rack.set_power_state(unit_of(machine).system, what)

    def power(self, machine: str) -> str:
        """On or Off, by the emulator's own state."""
        return str(self.rack.get_power_state(unit_of(machine).system))

    def _switched(self, name: str, on: bool) -> None:
        unit = unit_of(name)
        self._events.put((unit, self._seen(unit) if on else None))

    def _seen(self, unit: Unit) -> Machine:
        """What boots: all that the machine gets from the boot directory, under its claim's name."""
        claim = self.claims.of(unit.name)
        file = self.folder / "boot" / unit.name / "user-data"
        data = file.read_text() if file.exists() else ""
        if claim is None or claim.state is State.FREE:
            return Machine(unit.name, unit.name, unit.zone, {}, data)
        return Machine(claim.id, claim.wanted.name, unit.zone, claim.wanted.tags, data)

    def _tell(self) -> None:
        ids: dict[str, str] = {}
        while (event := self._events.get()) is not None:
            unit, machine = event
            if unit.name in ids and self.on_end is not None:
                self.on_end(ids[unit.name])
            ids.pop(unit.name, None)
            if machine is None:
                continue
            if (self.folder / "boot" / unit.name / "wipe").exists():
                self.wiped.append(unit.name)
                self.rack.late = 1  # a wipe takes a while, and then turns the machine off
                self.rack.set_power_state(unit.system, "ForceOff")
                continue
            ids[unit.name] = machine.id
            if self.on_boot is not None:
                self.on_boot(machine)

    # Cloud

    def fault(self, operation: Operation, fault: Fault, times: int = 1) -> None:
        """As in Cloud. Raises ValueError for what cannot happen here."""
        never = fault is Fault.QUOTA or (fault is Fault.CAPACITY and operation is not Operation.CREATE)
        if never or (fault is Fault.LATE and operation in {Operation.GET, Operation.LIST}):
            raise ValueError(f"{self.name}: {operation} knows no {fault}")
        with self._faults.lock:
            self._faults.orders += itertools.repeat((operation, fault), times)

    def calls(self) -> Mapping[str, int]:
        """By method and kind of resource, such as `POST System.Reset`."""
        with self._faults.lock:
            return dict(self._faults.calls)

    def held(self) -> tuple[Held, ...]:
        """Machines that are claimed, or on without a claim."""
        claims = {one.machine: one for one in self.claims.held()}
        return tuple(
            Held("host", claims[one.name].id, one.zone, claims[one.name].wanted.tags)
            if one.name in claims
            else Held("host", one.name, one.zone, {})
            for one in UNITS
            if one.name in claims or self.rack.powered(one.system)
        )

    def plant(self, kind: str, tags: Mapping[str, str]) -> str:
        """A machine that another Paddock claimed and turned on. Raises ValueError for disks and interfaces."""
        if kind != "host":
            raise ValueError(f"{self.name} has no {kind} of its own")
        claim = self.claims.claim([(one.name, one.zone) for one in UNITS if one.size == SIZE], _stranger(tags))
        claim = self.claims.change(claim, state=State.ON, asked_at=self.claims.clock())
        self.press(claim.machine, "On")
        return claim.id

    def close(self) -> None:
        """End the server and its threads; the folder goes."""
        self._server.shutdown()
        self._server.server_close()
        self.rack.close()
        self._events.put(None)
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self.folder)
