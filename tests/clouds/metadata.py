"""Emulated metadata services and token issuers of three clouds: real RSA keys, real JWTs, HTTP on loopback.

Each service answers for one machine, in the forms that the clouds document, and refuses what they refuse.
"""

import base64
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

Claims = dict[str, Any]
AWS_CLAIMS = "https://sts.amazonaws.com/"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    host: str


@dataclass(frozen=True, slots=True)
class Told:
    """One answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """What one server says."""

    def answer(self, asked: Asked) -> Told:
        """The answer to one request."""


class Server:
    """A service on a free port of loopback; `before` are answers that come first, `asked` is every request."""

    def __init__(self, service: Service) -> None:
        self.asked: list[Asked] = []
        self.before: list[Told] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _all(self) -> None:
                parts = urlsplit(self.path)
                asked = Asked(
                    self.command,
                    parts.path,
                    {name: values[0] for name, values in parse_qs(parts.query).items()},
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                    self.headers.get("Host", ""),
                )
                outer.asked.append(asked)
                told = outer.before.pop(0) if outer.before else service.answer(asked)
                with suppress(OSError):
                    self.send_response(told.status)
                    for name, value in {**told.headers, "Content-Length": str(len(told.body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(told.body)

            do_GET = do_PUT = do_POST = _all

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


@contextmanager
def raw(answer: bytes, *, then_silent: bool = False, drip_s: float = 0.0) -> Iterator[str]:
    """A server whose every connection gets these bytes, and then its end or silence; its URL.

    With `drip_s` they come one by one, with that pause between them.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            with suppress(OSError):
                peer, _ = listener.accept()
                held.append(peer)
                with suppress(OSError):
                    peer.recv(4096)
                    for piece in [answer[at : at + 1] for at in range(len(answer))] if drip_s else [answer]:
                        peer.sendall(piece)
                        if drip_s and stopping.wait(drip_s):
                            break
                if not then_silent:
                    peer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        with suppress(OSError):
            socket.create_connection(listener.getsockname(), 1).close()
        thread.join(10)
        for one in (listener, *held):
            one.close()


class Issuer:
    """Who signs a cloud's tokens: an RSA key, and its public half as a JWKS."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = secrets.token_hex(8)

    def answer(self, asked: Asked) -> Told:
        del asked
        numbers = self.key.public_key().public_numbers()
        n, e = (_b64(value.to_bytes((value.bit_length() + 7) // 8, "big")) for value in (numbers.n, numbers.e))
        keys = [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e}]
        return _json({"keys": keys})

    def sign(self, claims: Claims, **header: Any) -> str:
        """A JWT (RS256) with these claims; `iss` and the times are put in unless they are there."""
        now = int(time.time())
        claims = {"iss": self.name, "iat": now, "nbf": now, "exp": now + 300, **claims}
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid, **header}
        signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
        return f"{signed}.{_b64(self.key.sign(signed.encode(), PKCS1v15(), hashes.SHA256()))}"


def unsigned(claims: Claims) -> str:
    """A JWT that says of itself that nobody signed it; with a third part, as clients insist on one."""
    return f"{_b64(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{_b64(json.dumps(claims).encode())}.AA"


def claims_of(token: str) -> Claims:
    part = token.split(".")[1]
    found: Claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@dataclass
class GcpMachine:
    """Google: `identity?audience=…&format=full` of the machine's service account."""

    issuer: Issuer
    name: str
    project: str = "paddock-test"
    zone: str = "europe-west4-a"
    email: str = "hosts@paddock-test.iam.gserviceaccount.com"
    id: str = "4520031799277581759"

    def answer(self, asked: Asked) -> Told:
        stamp = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if asked.headers.get("metadata-flavor") != "Google":
            return Told(403, b"Missing Metadata-Flavor:Google header.", stamp)
        if asked.path != "/computeMetadata/v1/instance/service-accounts/default/identity" or not self.email:
            return Told(404, b"not found", stamp)
        if not asked.query.get("audience"):
            return Told(400, b"non-empty audience parameter required", stamp)
        claims = self.claims(asked.query["audience"])
        if asked.query.get("format") != "full":
            del claims["google"], claims["email"]
        return Told(200, self.issuer.sign(claims).encode(), stamp)

    def claims(self, audience: str) -> Claims:
        compute = {
            "instance_creation_timestamp": int(time.time()) - 30,
            "instance_id": self.id,
            "instance_name": self.name,
            "project_id": self.project,
            "project_number": 739419398126,
            "zone": self.zone,
        }
        who = {"sub": "107517467455664443765", "azp": "107517467455664443765", "email": self.email}
        return {"aud": audience, **who, "email_verified": True, "google": {"compute_engine": compute}}


@dataclass
class AzureMachine:
    """Azure: IMDS gives an access token of the user-assigned identity for one of the tenant's applications."""

    issuer: Issuer
    name: str
    applications: tuple[str, ...]
    subscription: str = "11111111-2222-3333-4444-555555555555"
    group: str = "Paddock-Hosts"
    identity: str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    client: str = "99999999-bbbb-cccc-dddd-eeeeeeeeeeee"
    tenant: str = "77777777-6666-5555-4444-333333333333"

    def answer(self, asked: Asked) -> Told:
        if asked.headers.get("metadata") != "true" or "x-forwarded-for" in asked.headers:
            return _json(
                {"error": "invalid_request", "error_description": "Required metadata header not specified"}, 400
            )
        if asked.path != "/metadata/identity/oauth2/token" or not asked.query.get("api-version"):
            return _json({"error": "invalid_request"}, 400)
        if asked.query.get("client_id", self.client) != self.client:
            return _json({"error": "invalid_request", "error_description": "Identity not found"}, 400)
        resource = asked.query.get("resource", "")
        if resource not in self.applications:
            return _json({"error": "invalid_resource", "error_description": "AADSTS500011"}, 400)
        token = self.issuer.sign(self.claims(resource))
        return _json({"access_token": token, "expires_in": "300", "resource": resource, "token_type": "Bearer"})

    def claims(self, audience: str) -> Claims:
        where = f"/subscriptions/{self.subscription}/resourcegroups/{self.group}/providers"
        return {
            "aud": audience,
            "appid": self.client,
            "idtyp": "app",
            "oid": self.identity,
            "sub": self.identity,
            "tid": self.tenant,
            "xms_az_rid": f"{where}/Microsoft.Compute/virtualMachines/{self.name}",
            "xms_mirid": f"{where}/Microsoft.ManagedIdentity/userAssignedIdentities/paddock-hosts",
        }


@dataclass
class AwsMachine:
    """AWS: IMDSv2 with the credentials of the instance's role, which `Sts` knows."""

    id: str
    region: str = "eu-central-1"
    account: str = "123456789012"
    role: str = "paddock-host"
    key_id: str = field(default_factory=lambda: f"ASIA{secrets.token_hex(8).upper()}")
    key: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(90), repr=False)
    sessions: set[str] = field(default_factory=set, repr=False)

    def answer(self, asked: Asked) -> Told:
        if asked.method == "PUT" and asked.path == "/latest/api/token":
            if not re.fullmatch(r"[0-9]{1,5}", asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")):
                return Told(400)
            self.sessions.add(made := secrets.token_urlsafe(40))
            return Told(200, made.encode())
        if asked.headers.get("x-aws-ec2-metadata-token") not in self.sessions:
            return Told(401)
        roles = "/latest/meta-data/iam/security-credentials/"
        keys = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": self.key_id,
            "SecretAccessKey": self.key,
            "Token": self.session,
        }
        said = {
            "/latest/meta-data/placement/region": self.region,
            "/latest/meta-data/services/domain": "amazonaws.com",
            roles: self.role,
            f"{roles}{self.role}": json.dumps(keys, indent=2),
        }
        return Told(200, said[asked.path].encode()) if asked.path in said and self.role else Told(404)

    @property
    def arn(self) -> str:
        return f"arn:aws:ec2:{self.region}:{self.account}:instance/{self.id}"


class Sts:
    """GetWebIdentityToken of a region: the caller is who signed, by Signature Version 4, as botocore computes it."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.machines: dict[str, AwsMachine] = {}
        self.allowed = True

    def add(self, machine: AwsMachine) -> None:
        self.machines[machine.key_id] = machine

    def answer(self, asked: Asked) -> Told:
        machine = self._caller(asked)
        if machine is None:
            return _sts_error(403, "SignatureDoesNotMatch")
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if form.get("Action") != "GetWebIdentityToken" or form.get("SigningAlgorithm") not in {"RS256", "ES384"}:
            return _sts_error(400, "InvalidAction")
        if not 60 <= int(form.get("DurationSeconds", "300")) <= 3600 or not form.get("Audience.member.1"):
            return _sts_error(400, "ValidationError")
        if not self.allowed:
            return _sts_error(403, "OutboundWebIdentityFederationDisabled")
        token = self.issuer.sign(self.claims(machine, form["Audience.member.1"]))
        result = f"<GetWebIdentityTokenResult><WebIdentityToken>{token}</WebIdentityToken></GetWebIdentityTokenResult>"
        return Told(200, f"<GetWebIdentityTokenResponse>{result}</GetWebIdentityTokenResponse>".encode())

    def claims(self, machine: AwsMachine, audience: str) -> Claims:
        principal = f"arn:aws:iam::{machine.account}:role/{machine.role}"
        said = {
            "aws_account": machine.account,
            "source_region": machine.region,
            "principal_id": principal,
            "ec2_source_instance_arn": machine.arn,
            "ec2_role_delivery": "2.0",
        }
        return {"aud": audience, "sub": principal, "jti": secrets.token_hex(8), AWS_CLAIMS: said}

    def _caller(self, asked: Asked) -> AwsMachine | None:
        given = re.search(r"Credential=(\w+)/\d{8}/([a-z0-9-]+)/sts/", asked.headers.get("authorization", ""))
        machine = self.machines.get(given[1]) if given else None
        if not given or not machine or asked.headers.get("x-amz-security-token") != machine.session:
            return None
        signed = re.search(r"SignedHeaders=([a-z0-9;-]+)", asked.headers["authorization"])
        names = signed[1].split(";") if signed else []
        request = AWSRequest(
            method=asked.method,
            url=f"http://{asked.host}{asked.path}",
            data=asked.body,
            headers={name: asked.headers[name] for name in names if name in asked.headers},
        )
        request.context["timestamp"] = asked.headers.get("x-amz-date", "")
        auth = SigV4Auth(Credentials(machine.key_id, machine.key, machine.session), "sts", given[2])
        expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        return machine if asked.headers["authorization"].endswith(f"Signature={expected}") else None


def _sts_error(status: int, code: str) -> Told:
    return Told(status, f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode())


def _json(value: object, status: int = 200) -> Told:
    return Told(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
