"""A real OpenBao server, set up by the very commands of docs/bootstrap.md, and emulated machines that enrol at it."""

import os
import re
import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hvac

from paddock.bootstrap.aws import Aws
from paddock.bootstrap.bao import BaoConfig
from paddock.bootstrap.enrol import ByIdentity, EnrolConfig, Enrolment, Opener, Places
from paddock.bootstrap.grants import Grants
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.identity import Azure, Gcp, Identity
from paddock.bootstrap.instances import aws_instance, azure_instance, gcp_instance
from paddock.bootstrap.shelf import GrantsConfig
from tests.clouds.metadata import AwsMachine, AzureMachine, Claims, GcpMachine, Issuer, Server, Sts
from tests.secrets.rig import BAO, until

DOC = Path(__file__).resolve().parents[2] / "docs" / "bootstrap.md"
CLOUDS = ("aws", "azure", "gcp")
AUDIENCE = "api://paddock-bootstrap-test"
RECORDER = "recorder-secret-that-no-text-may-hold"
API_KEY = "temporal-api-key-that-no-text-may-hold"


def commands(*headings: str) -> str:
    """The shell commands below these headings of the document, in its order."""
    text, found, seen = DOC.read_text(), [], set()
    for section in re.split(r"^#+ ", text, flags=re.M)[1:]:
        heading = section.partition("\n")[0]
        if heading in headings:
            seen.add(heading)
            found += re.findall(r"^```sh\n(.*?)^```$", section, flags=re.M | re.S)
    assert seen == set(headings), f"docs/bootstrap.md has no heading {set(headings) - seen}"
    return "\n".join(found)


class Store:
    """A dev server of OpenBao, all in memory; nothing is set up in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}", directory / "bao.log"
        self.root_token = secrets.token_hex(16)
        self._argv = [BAO, "server", "-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"]
        self._start(f"-dev-root-token-id={self.root_token}")

    def _start(self, *more: str) -> None:
        with self.log.open("wb") as log:
            environment = {"HOME": str(self.directory), "PATH": os.environ["PATH"]}
            self.process = subprocess.Popen([*self._argv, *more], stdout=log, stderr=subprocess.STDOUT, env=environment)
        client = hvac.Client(url=self.address)

        def up() -> bool:
            try:
                return bool(client.sys.is_initialized() and not client.sys.is_sealed())
            except OSError:
                return False

        until(up, 30)

    def run(self, script: str, **variables: str) -> str:
        """Commands of the document, as an operator would run them."""
        environment = {
            "HOME": str(self.directory),
            "PATH": f"{self._watched()}:{os.environ['PATH']}",
            "BAO_ADDR": self.address,
            "BAO_TOKEN": self.root_token,
            **variables,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def _watched(self) -> Path:
        """A `bao` that writes down its arguments, and is the real one."""
        folder, self.arguments = self.directory / "bin", self.directory / "arguments"
        folder.mkdir(exist_ok=True)
        program = folder / "bao"
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >>{self.arguments}\nexec {BAO} "$@"\n')
        program.chmod(0o755)
        return folder

    def seal(self) -> None:
        hvac.Client(url=self.address, token=self.root_token).sys.seal()

    def unseal(self) -> None:
        key = re.search(r"^Unseal Key: (\S+)$", self.log.read_text(), flags=re.M)
        assert key
        hvac.Client(url=self.address).sys.submit_unseal_key(key[1])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Shows:
    """An identity that shows one token, true or not."""

    token: str = field(repr=False)

    def prove(self, audience: str) -> Hidden:
        del audience
        return Hidden(self.token)


@dataclass
class Machine:
    """An emulated machine: what its provider calls it, and its own way to prove itself."""

    id: str
    instance: str
    server: Server
    identity: Identity
    claims: Claims


class Cloud:
    """One cloud's issuer and machines, with the settings that its part of the document wants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.issuer = Issuer(f"https://issuer.{name}.example.com/")
        self.jwks = Server(self.issuer)
        self.sts = Sts(self.issuer)
        self._sts_server = Server(self.sts)
        self._servers = [self.jwks, self._sts_server]

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AUDIENCE": AUDIENCE,
            "ISSUER": self.issuer.name,
            "JWKS_URL": self.jwks.url,
            "ROLE_ARN": "arn:aws:iam::123456789012:role/paddock-host",
            "AWS_ACCOUNT": "123456789012",
            "AZURE_IDENTITY": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "AZURE_SUBSCRIPTION": "11111111-2222-3333-4444-555555555555",
            "AZURE_GROUP": "Paddock-Hosts",
            "GCP_SERVICE_ACCOUNT": "hosts@paddock-test.iam.gserviceaccount.com",
            "GCP_PROJECT": "paddock-test",
            "GCP_ZONES": '["europe-west4-a", "europe-west4-b"]',
        }

    def machine(self, **more: Any) -> Machine:
        """A machine of its own; `more` changes what its cloud says of it."""
        name = f"ph-{secrets.token_hex(10)}-1"
        if self.name == "gcp":
            gcp = GcpMachine(self.issuer, name, **more)
            server = self._serve(gcp)
            return Machine(name, gcp_instance(name), server, Gcp(server.url, 2), gcp.claims(AUDIENCE))
        if self.name == "azure":
            azure = AzureMachine(self.issuer, name, (AUDIENCE, "https://other.example.com/"), **more)
            id = (
                f"/subscriptions/{azure.subscription}/resourceGroups/{azure.group}"
                f"/providers/Microsoft.Compute/virtualMachines/{name}"
            )
            server = self._serve(azure)
            return Machine(
                id, azure_instance(id), server, Azure(metadata=server.url, timeout_s=2), azure.claims(AUDIENCE)
            )
        aws = AwsMachine(f"i-{secrets.token_hex(8)}1", **more)
        self.sts.add(aws)
        server = self._serve(aws)
        instance = aws_instance(aws.id, f"{aws.region}a", aws.account)
        return Machine(
            aws.id, instance, server, Aws(server.url, self._sts_server.url, 2), self.sts.claims(aws, AUDIENCE)
        )

    def says(self, machine: Machine) -> dict[str, str]:
        """What a machine's configuration says of its cloud."""
        return {"identity": self.name, "metadata": machine.server.url, "sts": self._sts_server.url}

    def _serve(self, service: Any) -> Server:
        self._servers.append(Server(service))
        return self._servers[-1]

    def close_keys(self) -> None:
        self._servers.remove(self.jwks)
        self.jwks.close()

    def close(self) -> None:
        for server in self._servers:
            server.close()


HEADINGS = {"aws": "AWS", "azure": "Azure", "gcp": "Google"}


@dataclass
class Environment:
    """An environment at the store, set up as the document says, with its worker's grants."""

    store: Store
    cloud: Cloud
    directory: Path
    name: str = field(default_factory=lambda: f"env-{secrets.token_hex(4)}")
    hosts: int = 0

    def __post_init__(self) -> None:
        files = {"RECORDER_FILE": RECORDER, "API_KEY_FILE": API_KEY}
        for variable, content in files.items():
            (self.directory / variable).write_text(content)
        self.token_file = self.directory / "worker-token"
        variables = {
            **self.cloud.variables,
            **{variable: str(self.directory / variable) for variable in files},
            "ENVIRONMENT": self.name,
            "WORKER_TOKEN_FILE": str(self.token_file),
        }
        self.store.run(commands("Everything but the cloud", HEADINGS[self.cloud.name]), **variables)
        self.root = hvac.Client(url=self.store.address, token=self.store.root_token, namespace=self.name)
        self.bao = BaoConfig(address=self.store.address, namespace=self.name, timeout_s=5)
        self.grants_config = GrantsConfig(store=self.bao, token_file=self.token_file)

    @property
    def grants(self) -> Grants:
        """A worker that has just started: nothing is remembered in it."""
        return Grants(self.grants_config)

    def host(self) -> str:
        self.hosts += 1
        return f"host-{self.hosts}"

    def config(self, host: str, attempt: int = 1, **more: Any) -> EnrolConfig:
        home = self.directory / f"{host}.{attempt}-{secrets.token_hex(4)}"
        home.mkdir()
        places = Places(
            certificate=home / "temporal.pem",
            key=home / "temporal.key",
            api_key=home / "temporal-api-key",
            recorder=home / "recorder",
        )
        fields = {"audience": AUDIENCE, "places": places, "patience_s": 1.0, **more}
        return EnrolConfig(environment=self.name, host=host, attempt=attempt, store=self.bao, **fields)

    def enrolment(self, machine: Machine | Opener | str, config: EnrolConfig) -> Enrolment:
        """Of a machine, of somebody who shows this token, or by another way."""
        if isinstance(machine, str):
            return Enrolment(config, ByIdentity(Shows(machine)))
        return Enrolment(config, ByIdentity(machine.identity) if isinstance(machine, Machine) else machine)

    def opened(self, **more: Any) -> tuple[str, Machine]:
        """A host with a machine that has a grant."""
        host, machine = self.host(), self.cloud.machine(**more)
        self.grants.open(host, 1, machine.instance, soon())
        return host, machine

    def wrapped(self, name: str) -> str:
        """What lies in a locker, by the operator's right."""
        found = self.root.secrets.kv.v2.read_secret_version(
            f"grants/{name}", mount_point="paddock", raise_on_deleted_version=True
        )
        return str(found["data"]["data"]["wrapped"])

    def unwrap(self, name: str) -> hvac.Client:
        """A client with the token of a grant, as a host would hold it for a moment."""
        client = hvac.Client(url=self.store.address, token=self.wrapped(name), namespace=self.name)
        client.token = client.adapter.post("/v1/sys/wrapping/unwrap", json={})["auth"]["client_token"]
        return client


def soon(seconds: float = 300) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
