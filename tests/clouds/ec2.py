"""An emulated EC2: moto behind a wrapper with the real one's tokens, delays, refusals and failures."""

import hashlib
import io
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from moto.ec2.models.instances import StateReason
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from providers.aws import Aws
from providers.contract import HostProvider
from tests.clouds.cloud import Fault, Held, Machine, Operation
from tests.clouds.ec2_account import KEYS, SIZE, ZONES, Account
from tests.clouds.ec2_wire import Refusal, Request, check_launch, ending, nested_sizes, page, shown

ENDS = {"TerminateInstances", "DeleteVolume", "DeleteNetworkInterface", "ReleaseAddress"}
FAULTS = {
    Fault.THROTTLED: Refusal(503, "RequestLimitExceeded", "Request limit exceeded."),
    Fault.TRANSIENT: Refusal(500, "InternalError", "An internal error has occurred"),
    Fault.CAPACITY: Refusal(
        500,
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient capacity in the Availability Zone you requested.",
    ),
    Fault.QUOTA: Refusal(
        400,
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket.",
    ),
    Fault.AUTH: Refusal(
        403,
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. Encoded authorization failure message: " + "qZx7" * 150,
    ),
}
SPOT, NESTED = "InstanceMarketOptions.MarketType", "CpuOptions.NestedVirtualization"
# As documented: neither region nor zone is part of what requests with one token are compared by.
UNCOMPARED = {"ClientToken", "SubnetId", "NetworkInterface.1.SubnetId", "Placement.AvailabilityZone"}


class Lost(ConnectionAbortedError):
    """It happened, and the connection breaks before the answer."""


@dataclass(frozen=True)
class Launch:
    """What one token started in one zone, and how it was asked for."""

    zone: str
    digest: str
    id: str
    body: bytes


class Quiet(WSGIRequestHandler):
    """A handler that logs nothing: a test's output is its own."""

    def log(self, type: str, message: str, *args: Any) -> None:
        del type, message, args


class Ec2:
    """Two regions on loopback. A `late` launch is unseen for `late_s`; the provider settles after twice that."""

    name = "aws"
    zones: tuple[str, ...] = ZONES
    size = SIZE
    size_without_kvm = "m5.large"

    def __init__(self, *, boot_s: float = 0.1, end_s: float = 0.1, late_s: float = 0.5) -> None:
        self.on_boot: Callable[[Machine], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.refuses_nested_spot = False
        self.requests: list[Request] = []  # for a test that asks what was really sent
        self.account = Account(boot_s, end_s, self._booted, self._ended)
        self._late_s = late_s
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = self.account.lock
        self._calls: Counter[str] = Counter()
        self._faults: list[tuple[Operation, Fault]] = []
        self._tokens: dict[tuple[str, str], list[Launch]] = {}
        self._type_answers: dict[str, bytes] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), name="ec2")
        self._thread.start()
        self.ground = self.account.ground(self.endpoint, 2 * late_s)
        self.provider: HostProvider = Aws(self.ground)

    # What tests ask

    def fault(self, operation: Operation, fault: Fault, times: int = 1) -> None:
        """The next `times` main requests fail so; only a launch lacks capacity or quota, or is seen late."""
        if operation is not Operation.CREATE and fault in {Fault.CAPACITY, Fault.QUOTA, Fault.LATE}:
            raise ValueError(f"EC2 has no {fault} on {operation}")
        with self._lock:
            self._faults += [(operation, fault)] * times

    def calls(self) -> Mapping[str, int]:
        """By action."""
        with self._lock:
            return dict(self._calls)

    def held(self) -> tuple[Held, ...]:
        """Instances that are not terminated, volumes, interfaces and addresses of both regions."""
        with self._lock:
            return tuple(self.account.held())

    def plant(self, kind: str, tags: Mapping[str, str]) -> str:
        """In the first zone; also an `address`."""
        with self._lock:
            return self.account.plant(kind, tags)

    def end(self, id: str, code: str = "Client.InstanceInitiatedShutdown", text: str = "Instance initiated") -> None:
        """An instance ends by itself, or by EC2's own doing."""
        with self._lock:
            self.account.end(self.account.instance(id), StateReason(f"{code}: {text}", code))

    def close(self) -> None:
        """No thread and no port is left; twice does no harm."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.account.close()

    def _booted(self, machine: Machine) -> None:
        if self.on_boot:
            self.on_boot(machine)

    def _ended(self, id: str) -> None:
        if self.on_end:
            self.on_end(id)

    # The server

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        request = Request.read(body, environ.get("HTTP_AUTHORIZATION", ""))
        with self._lock:
            self._calls[request.action] += 1
            self.requests.append(request)
            try:
                status, answer = 200, self._answer(request, environ)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body()
            except Lost:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise
        headers = [("Content-Type", "text/xml;charset=UTF-8"), ("Content-Length", str(len(answer)))]
        start_response(f"{status} {'OK' if status == 200 else 'Error'}", headers)
        return [answer]

    def _answer(self, request: Request, environ: dict[str, Any]) -> bytes:
        if request.scope[0] != KEYS.access_key_id:
            raise Refusal(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        fault = self._next_fault(request)
        if fault in FAULTS:
            raise FAULTS[fault]
        handlers = {
            "RunInstances": self._run,
            "DescribeInstances": self._describe,
            "TerminateInstances": self._terminate,
            "DescribeInstanceTypes": self._types,
            "DeleteNetworkInterface": self._delete_interface,
        }
        before = self._launched()
        answer = handlers.get(request.action, self._pass)(request, environ)
        if fault is Fault.LATE:
            self.account.hide(self._launched() - before, self._late_s)
        if fault is Fault.LOST:
            raise Lost
        return answer

    def _next_fault(self, request: Request) -> Fault | None:
        operation = Operation.TERMINATE if request.action in ENDS else None
        if request.action == "RunInstances":
            operation = Operation.CREATE
        if request.action == "DescribeInstances":
            operation = Operation.GET if "client-token" in request.filters() else Operation.LIST
        for number, (where, fault) in enumerate(self._faults):
            if where is operation:
                del self._faults[number]
                return fault
        return None

    def _launched(self) -> set[str]:
        return {launch.id for launches in self._tokens.values() for launch in launches}

    def _run(self, request: Request, environ: dict[str, Any]) -> bytes:
        form, region = request.form, request.scope[1]
        backend = self.account.backend(region)
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId", "")
        zones = {one.id: one.availability_zone for one in backend.describe_subnets()}
        if subnet not in zones:
            raise Refusal(400, "InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
        check_launch(request, zones[subnet], backend.amis)
        if self.refuses_nested_spot and SPOT in form and NESTED in form:
            raise Refusal(400, "InvalidParameterCombination", "Nested virtualization is not supported for Spot.")
        compared = repr(sorted((key, value) for key, value in form.items() if key not in UNCOMPARED))
        digest = hashlib.sha256(compared.encode()).hexdigest()
        launches = self._tokens.setdefault((region, form.get("ClientToken", "")), [])
        if any(launch.digest != digest for launch in launches):
            text = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            raise Refusal(400, "IdempotentParameterMismatch", text)
        for launch in launches:
            if launch.zone == zones[subnet]:
                return self._again(launch)
        body = self._pass(request, environ)
        id = re.search(rb"<instanceId>(i-[0-9a-f]+)<", body)
        assert id is not None, body
        self.account.boot(region, id[1].decode(), request)
        if form.get("ClientToken"):
            launches.append(Launch(zones[subnet], digest, id[1].decode(), body))
        return shown(body, self.account.nested, ())

    def _again(self, launch: Launch) -> bytes:
        if self.account.instance(launch.id).state in {"shutting-down", "terminated"}:
            text = f"The instance of this client token, {launch.id}, is terminated"
            raise Refusal(400, "IdempotentInstanceTerminated", text)
        return shown(launch.body, self.account.nested, ())

    def _describe(self, request: Request, environ: dict[str, Any]) -> bytes:
        tokens = request.filters().get("client-token")
        if tokens is not None:
            keys = [(request.scope[1], token) for token in tokens]
            launched = [launch.id for key in keys for launch in self._tokens.get(key, ())]
            request = request.with_filter_as("client-token", "instance-id", launched)
        hidden = self.account.hidden()
        for id in request.ids("InstanceId"):
            _must_know(id, id not in hidden)
        return shown(self._pass(request, environ), self.account.nested, hidden)

    def _terminate(self, request: Request, environ: dict[str, Any]) -> bytes:
        del environ
        ids, hidden = request.ids("InstanceId"), self.account.hidden()
        known = {one.id: one for one in self.account.backend(request.scope[1]).all_instances()}
        for id in ids:
            _must_know(id, id in known and id not in hidden)
        states = {id: known[id].state for id in ids}
        for id in ids:
            self.account.end(known[id])
        return ending(states)

    def _types(self, request: Request, environ: dict[str, Any]) -> bytes:
        features = request.filters().get("processor-info.supported-features")
        if features is not None:
            wanted = nested_sizes() if features == ["nested-virtualization"] else set()
            request = request.with_filter_as("processor-info.supported-features", "instance-type", sorted(wanted))
        form = {key: value for key, value in request.form.items() if key not in {"NextToken", "MaxResults"}}
        if repr(form) not in self._type_answers:
            self._type_answers[repr(form)] = self._pass(Request(form, request.authorization), environ)
        start, count = int(request.form.get("NextToken", "0")), int(request.form.get("MaxResults", "100"))
        return page(self._type_answers[repr(form)], "instanceTypeSet", start, count)

    def _delete_interface(self, request: Request, environ: dict[str, Any]) -> bytes:
        id = request.form.get("NetworkInterfaceId", "")
        nic = self.account.backend(request.scope[1]).enis.get(id)
        if nic is not None and nic.instance is not None:
            raise Refusal(400, "InvalidParameterValue", f"Network interface '{id}' is currently in use.")
        return self._pass(request, environ)

    def _pass(self, request: Request, environ: dict[str, Any]) -> bytes:
        """moto's own answer. Raises Refusal."""
        body = urlencode(request.form).encode()
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        inner["HTTP_X_MOTO_ACCOUNT_ID"] = self.account.number
        said: list[int] = []

        def start(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], None]:
            del headers, exc_info
            said.append(int(status.split()[0]))
            return lambda data: None

        answer = b"".join(self._moto(inner, start))
        if said[0] != 200:
            code, text = (re.search(rb"<%s>(.*?)</" % name, answer, re.DOTALL) for name in (b"Code", b"Message"))
            raise Refusal(said[0], code[1].decode() if code else "InternalError", text[1].decode() if text else "")
        return answer


def _must_know(id: str, known: bool) -> None:
    if not known:
        raise Refusal(400, "InvalidInstanceID.NotFound", f"The instance ID '{id}' does not exist")
