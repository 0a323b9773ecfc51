"""The emulator's machines and what stands before them: their pace, faults by operation, and a count of all calls.

The emulator's fake driver takes one to eleven seconds for each change of power, forgets nothing after a boot `once`,
and tells no time of the last reset: `Rack` sets the pace and adds both. One of its habits is kept: a machine that was
asked to turn on, and is told `ForceOff` before it is on, comes on all the same.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from sushy_tools.emulator.resources.systems import fakedriver
from werkzeug.wrappers import Response

from tests.clouds.cloud import Fault, Operation

SIZE, PLAIN = "metal-8", "plain-4"
LATE_S = 1.5
_ANSWERS = {
    Fault.THROTTLED: (503, "Base.1.0.ServiceTemporarilyUnavailable", [("Retry-After", "3")]),
    Fault.TRANSIENT: (500, "Base.1.0.InternalError", []),
    Fault.LOST: (500, "Base.1.0.InternalError", []),
    Fault.AUTH: (401, "Base.1.0.NoValidSession", []),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One machine in a rack."""

    name: str
    zone: str
    size: str

    @property
    def system(self) -> str:
        return str(uuid5(NAMESPACE_DNS, self.name))


UNITS = tuple(
    Unit(f"r{rack}u{unit}", f"rack{rack}", SIZE if unit <= 12 else PLAIN) for rack in (1, 2) for unit in range(1, 15)
)


def unit_of(name: str) -> Unit:
    return next(one for one in UNITS if one.name == name)


class Rack(fakedriver.FakeDriver):  # type: ignore[misc]
    """The emulator's own driver, its changes of power after `pace_s`, applied on time and told of."""

    pace_s = 0.05
    switched: Callable[[str, bool], None]

    @classmethod
    def telling(cls, switched: Callable[[str, bool], None]) -> type["Rack"]:
        """A class of its own, as the driver keeps its configuration there; `switched` hears of each change."""
        return type("Rack", (cls,), {"switched": staticmethod(switched)})

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.late = 0
        self._due: dict[str, float] = {}
        self._closed = False
        super().__init__()
        self._clock = threading.Thread(target=self._run, name="rack", daemon=True)
        self._clock.start()

    def set_power_state(self, identity: str, state: str) -> None:
        with self.lock:
            before = self._get(identity).get("pending_power")
            super().set_power_state(identity, state)
            system = self._systems[identity]
            if system.get("pending_power") not in (None, before):
                due = time.time() + (LATE_S if self.late else self.pace_s)
                self.late = max(0, self.late - 1)
                system["pending_power"]["apply_time"] = self._due[identity] = due
                self._systems[identity] = system
                self.lock.notify()

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        with self.lock:
            super().set_boot_device(identity, boot_source)

    def powered(self, identity: str) -> bool:
        """On, or about to be."""
        system = self._get(identity)
        return "On" in (system["power_state"], (system.get("pending_power") or {}).get("power_state"))

    def reset_at(self, identity: str) -> str:
        return str(self._get(identity).get("reset_at", ""))

    def _get(self, identity: str) -> Any:
        with self.lock:
            return super()._get(identity)

    def _update(self, system: Any, **changes: Any) -> None:
        with self.lock:
            system = self._get(system) if isinstance(system, str) else system
            new = changes.get("power_state")
            if new == "On":
                changes |= {"boot_device": "Hdd", "reset_at": datetime.now(UTC).isoformat()}
            super()._update(system, **changes)
            if new is not None:
                self.switched(system["name"], new == "On")

    def _run(self) -> None:
        with self.lock:
            while not self._closed:
                now = time.time()
                for identity in [one for one, due in self._due.items() if due <= now]:
                    del self._due[identity]
                    self._get(identity)
                self.lock.wait(min(self._due.values()) - now if self._due else None)

    def close(self) -> None:
        with self.lock:
            self._closed = True
            self.lock.notify()
        self._clock.join()


@dataclass
class Faults:
    """What was ordered to go wrong, and the count of all calls."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    orders: list[tuple[Operation, Fault]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    def take(
        self, operations: Sequence[Operation], *, but: Fault | None = None, only: Fault | None = None
    ) -> Fault | None:
        with self.lock:
            for order in self.orders:
                if order[0] in operations and order[1] is not but and only in (None, order[1]):
                    self.orders.remove(order)
                    return order[1]
        return None


class Front:
    """Before the emulator's application: counts, faults, and the time of the last reset."""

    def __init__(self, app: Any, faults: Faults, rack: Callable[[], Rack]) -> None:
        self.app, self.faults, self.rack = app, faults, rack
        self.bodies: list[tuple[str, str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        kind, operations, body = self._request(environ)
        with self.faults.lock:
            self.faults.calls[kind] += 1
            if body:
                self.bodies.append((kind, environ["PATH_INFO"], body))
        fault = self.faults.take(operations, but=Fault.CAPACITY)
        if fault is Fault.LATE:
            self.rack().late = 1
        elif fault is Fault.LOST:
            Response.from_app(self.app, environ).close()
        if fault in _ANSWERS:
            return self._refusal(fault)(environ, start)
        answer = Response.from_app(self.app, environ, buffered=True)
        if kind == "GET System" and answer.status_code == HTTPStatus.OK:
            reset = self.rack().reset_at(environ["PATH_INFO"].rsplit("/", 1)[1])
            answer.data = json.dumps(json.loads(answer.data) | ({"LastResetTime": reset} if reset else {}))
        return answer(environ, start)

    @staticmethod
    def _refusal(fault: Fault) -> Response:
        status, code, headers = _ANSWERS[fault]
        body = {"error": {"code": code, "message": f"planted: {fault}", "@Message.ExtendedInfo": []}}
        return Response(json.dumps(body), status, headers, content_type="application/json")

    @staticmethod
    def _request(environ: dict[str, Any]) -> tuple[str, tuple[Operation, ...], Any]:
        """The method with the kind of resource, the operations whose main request it is, and its body."""
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(raw)
        body = json.loads(raw) if raw else None
        parts = environ["PATH_INFO"].strip("/").split("/")
        kind = "System.Reset" if parts[-1].endswith(".Reset") else "System" if len(parts) == 4 else parts[-1]
        operations: tuple[Operation, ...] = ()
        match environ["REQUEST_METHOD"], kind, body:
            case "GET", "System", _:
                operations = (Operation.GET, Operation.LIST)
            case "POST", "System.Reset", {"ResetType": "On"}:
                operations = (Operation.CREATE,)
            case "POST", "System.Reset", {"ResetType": "ForceOff"}:
                operations = (Operation.TERMINATE,)
        return f"{environ['REQUEST_METHOD']} {kind}", operations, body
