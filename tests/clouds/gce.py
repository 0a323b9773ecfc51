"""An emulated Google Cloud on loopback for the real SDK, every request and answer judged by Google's own schema."""

import json
import queue
import socket
import ssl
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from providers.contract import HostProvider
from providers.gcp import Gcp, GcpGround
from tests.clouds import discovery
from tests.clouds.cloud import Fault, Held, Machine, Operation
from tests.clouds.gce_api import Api, Trouble
from tests.clouds.gce_rules import PROJECT, ZONES, Refusal
from tests.clouds.gce_world import Failing, Vm, World

MAIN = {
    "compute.instances.insert": Operation.CREATE,
    "compute.instances.get": Operation.GET,
    "compute.instances.aggregatedList": Operation.LIST,
    "compute.instances.delete": Operation.TERMINATE,
}
EXHAUSTED = "The zone 'projects/paddock-test/zones/europe-west4-a' does not have enough resources available."
NO_QUOTA = "Quota 'N2_CPUS' exceeded.  Limit: 8.0 in region europe-west4."
# Each fault comes in the forms that Google gives it, in turn.
REFUSALS = {
    Fault.THROTTLED: (
        Refusal(403, "rateLimitExceeded", "Rate Limit Exceeded"),
        Refusal(429, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries'.", retry_after="7"),
    ),
    Fault.TRANSIENT: (Refusal(503, "backendError", "Backend Error"), Refusal(500, "internalError", "Internal Error")),
    Fault.CAPACITY: (Refusal(503, "ZONE_RESOURCE_POOL_EXHAUSTED", EXHAUSTED),),
    Fault.QUOTA: (Refusal(403, "quotaExceeded", NO_QUOTA),),
    Fault.AUTH: (
        Refusal(403, "forbidden", "Required 'compute.instances' permission for 'projects/paddock-test'"),
        Refusal(401, "authError", "Request had invalid authentication credentials."),
    ),
}
IN_OPERATION = {
    Fault.CAPACITY: Failing("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", EXHAUSTED, 503),
    Fault.QUOTA: Failing("QUOTA_EXCEEDED", NO_QUOTA, 403),
}


class Gce:
    """One project of Google's. An id is a name, as in the API; `pace` is the seconds of each step in a machine's life.

    Capacity and quota come to a creation in turn as the call's answer and in its operation. Beside the protocol:
    `refused` has what broke the schema in requests, `fail_in_operation`, `unreachable`, `stop`, `vmx`. With `tls` every
    request needs a bearer token (`bearers` has them), until they are `revoked`; by plain http none must come.
    """

    name = "gcp"
    zones: tuple[str, ...] = ZONES
    size = "n2-standard-4"
    size_without_kvm = "e2-standard-4"

    def __init__(
        self, pace: float = 0.04, page: int = 2, late_s: float = 0.8, tls: ssl.SSLContext | None = None
    ) -> None:
        self.on_boot: Callable[[Machine], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.refused: list[str] = []
        self._broken: list[str] = []
        self._calls: Counter[str] = Counter()
        self._faults: dict[Operation, deque[Fault]] = {operation: deque() for operation in Operation}
        self._failing: deque[Failing] = deque()
        self._turns: Counter[tuple[Operation, Fault]] = Counter()
        self._hooks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._hooking = threading.Thread(target=self._run_hooks, name="gce-hooks", daemon=True)
        self._hooking.start()
        self.world = World(pace, self._booted, self._ended)
        self.api = Api(self.world, page, late_s)
        self._guarded, self.revoked = tls is not None, False
        self.bearers: set[str] = set()
        self._server = _Server(self, tls)
        port = self._server.server_port
        self.endpoint = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        self.provider: HostProvider = Gcp(self.ground())

    def ground(self, **changes: Any) -> GcpGround:
        """The settings of an environment in this project."""
        settings: dict[str, Any] = {
            "project": PROJECT,
            "zones": ZONES,
            "subnetworks": {"europe-west4": "hosts", "us-central1": "hosts"},
            "image": "paddock-host",
            "service_account": f"host@{PROJECT}.iam.gserviceaccount.com",
            "endpoint": self.endpoint,
        }
        return GcpGround(**(settings | changes))

    # The protocol

    def fault(self, operation: Operation, fault: Fault, times: int = 1) -> None:
        """The next `times` main requests of this operation fail so."""
        with self.world.lock:
            self._faults[operation].extend([fault] * times)

    def calls(self) -> Mapping[str, int]:
        """How many requests came, by discovery's method ids."""
        with self.world.lock:
            return dict(self._calls)

    def held(self) -> tuple[Held, ...]:
        """Machines, disks and addresses that exist; a machine until its end's operation is done."""
        with self.world.lock:
            vms = [Held("host", vm.name, vm.zone, dict(vm.body["labels"])) for vm in self.world.vms.values()]
            disks = [Held("disk", name, zone, dict(one["labels"])) for (zone, name), one in self.world.disks.items()]
            places = self.world.addresses.items()
            addresses = [Held("address", name, place, dict(one["labels"])) for (place, name), one in places]
            return (*vms, *disks, *addresses)

    def plant(self, kind: str, tags: Mapping[str, str]) -> str:
        """A resource with these tags; a host comes with a disk, and for a nic there is an address."""
        name, zone = f"planted-{uuid.uuid4().hex[:12]}", self.zones[0]
        with self.world.lock:
            match kind:
                case "host":
                    asked = {"labels": dict(tags), "diskName": f"{name}-boot"}
                    disk = {"boot": True, "autoDelete": True, "initializeParams": asked}
                    size = f"zones/{zone}/machineTypes/{self.size}"
                    body = {"name": name, "machineType": size, "labels": dict(tags), "disks": [disk]}
                    self.world.build(zone, body, "RUNNING")
                case "disk":
                    self.world.add_disk(zone, name, tags)
                case "nic" | "address":
                    self.world.add_address(zone.rpartition("-")[0], name, tags)
                case _:
                    raise ValueError(f"nothing of kind {kind!r} can be planted: host, disk, nic or address")
        return name

    def close(self) -> None:
        """End the server. Raises AssertionError when an answer broke Google's schema, or a hook failed."""
        self._server.close()
        self.world.timeline.close()
        self._hooks.put(None)
        self._hooking.join(10)
        assert not self._broken, "the emulator itself broke: " + "; ".join(self._broken)

    # What only Google has

    def fail_in_operation(
        self, code: str, text: str = EXHAUSTED, status: int = 503, *, leave_disk: bool = False
    ) -> None:
        """The next creation is accepted, and fails in its operation; `leave_disk`: its boot disk stays."""
        with self.world.lock:
            self._failing.append(Failing(code, text, status, leave_disk))

    def unreachable(self, scope: str, how: str = "warning") -> None:
        """Lists cannot read this scope (`zones/…`) and tell so by `warning` or by `unreachables`."""
        with self.world.lock:
            self.api.unreachable[scope] = how

    def stop(self, zone: str, name: str) -> None:
        """A machine stops, as when its guest shuts down: it stays, with its disk."""
        with self.world.lock:
            self.world.vms[zone, name].body["status"] = "TERMINATED"

    def vmx(self, zone: str, name: str) -> bool:
        """Whether the machine really has KVM."""
        with self.world.lock:
            return self.world.vms[zone, name].vmx

    # Requests

    def handle(self, verb: str, target: str, content: bytes, authorization: str = "") -> tuple[int, Any, str] | None:
        """Status, body (None for an empty one) and Retry-After; None when the answer gets lost."""
        if refusal := self._stranger(authorization):
            return refusal.status, refusal.body(), ""
        parts = urlsplit(target)
        found = discovery.method_of(verb, parts.path)
        if found is None:
            self.refused.append(f"{verb} {parts.path} is no method of Google's")
            return 404, Refusal(404, "notFound", "Not Found").body(), ""
        method, path = found
        try:
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            body = json.loads(content) if content else None
        except ValueError as wrong:
            self.refused.append(f"{method.id}: {wrong}")
            return 400, Refusal(400, "parseError", f"Parse Error: {wrong}").body(), ""
        with self.world.lock:
            self._calls[method.id] += 1
            return self._judged(method, path, query, body)

    def _stranger(self, authorization: str) -> Refusal | None:
        if not self._guarded:
            if authorization:
                self.refused.append("credentials came by plain http")
            return None
        self.bearers.add(authorization.removeprefix("Bearer "))
        if authorization.startswith("Bearer ") and not self.revoked:
            return None
        return REFUSALS[Fault.AUTH][1]

    def _judged(
        self, method: discovery.Method, path: dict[str, str], query: dict[str, str], body: Any
    ) -> tuple[int, Any, str] | None:
        if faults := discovery.request_faults(method, path, query, body):
            self.refused += [f"{method.id}: {fault}" for fault in faults]
            return 400, Refusal(400, "badRequest", f"Invalid JSON payload received. {faults[0]}").body(), ""
        fault = self._next_fault(MAIN.get(method.id))
        try:
            met = self._met(MAIN.get(method.id), fault)
            answer = self.api.answer(method.id, path, query, body, met)
        except Refusal as refusal:
            return refusal.status, refusal.body(), refusal.retry_after
        # As it is now: the world goes on while it is sent.
        answer = json.loads(json.dumps(answer))
        if broken := discovery.answer_faults(method, answer):
            self._broken += [f"{method.id}: {one}" for one in broken]
            return 500, Refusal(500, "emulator", broken[0]).body(), ""
        if fault is Fault.LOST:
            return None
        return (204 if answer is None else 200), answer, ""

    def _next_fault(self, operation: Operation | None) -> Fault | None:
        return self._faults[operation].popleft() if operation and self._faults[operation] else None

    def _met(self, operation: Operation | None, fault: Fault | None) -> Trouble:
        creating = operation is Operation.CREATE
        if operation is None or fault in {None, Fault.LOST, Fault.LATE}:
            failing = self._failing.popleft() if creating and self._failing else None
            return Trouble(failing, late=fault is Fault.LATE)
        assert fault is not None
        turn = self._turns[operation, fault]
        self._turns[operation, fault] += 1
        if creating and fault in IN_OPERATION and turn % 2:
            return Trouble(IN_OPERATION[fault])
        forms = REFUSALS[fault]
        raise forms[turn % len(forms)]

    # Hooks, outside of the lock: they may take their time, and may call the API

    def _booted(self, vm: Vm) -> None:
        items = vm.body["metadata"].get("items", ())
        data = next((one["value"] for one in items if one["key"] == "user-data"), "")
        machine = Machine(vm.name, vm.name, vm.zone, dict(vm.body["labels"]), data)
        self._hooks.put(lambda: self.on_boot(machine) if self.on_boot else None)

    def _ended(self, vm: Vm) -> None:
        self._hooks.put(lambda: self.on_end(vm.name) if self.on_end else None)

    def _run_hooks(self) -> None:
        while (hook := self._hooks.get()) is not None:
            try:
                hook()
            except Exception as wrong:
                self._broken.append(f"a hook failed: {wrong!r}")


class _Server(ThreadingHTTPServer):
    """Serves one emulator from threads; `close` ends open connections too."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, cloud: Gce, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.cloud = cloud
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="gce-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The port is free once this returns."""
        self.shutdown()
        self.server_close()
        self._thread.join(10)
        for connection in tuple(self.open):
            _hang_up(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.cloud.handle(self.command, self.path, content, self.headers.get("Authorization", ""))
        if answer is None:
            self.close_connection = True
            _hang_up(self.connection)
            return
        status, body, retry_after = answer
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        if retry_after:
            self.send_header("Retry-After", retry_after)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: `calls` counts."""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other end was faster
