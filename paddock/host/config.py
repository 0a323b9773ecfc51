"""A host's configuration, read from one JSON file that `paddock up` or an operator writes."""

import base64
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.spec import Shape
from paddock.egress.config import Connection
from paddock.host.paths import HostPaths
from paddock.secrets.openbao import OpenBaoConfig


class SecretStore(Strict):
    """Where secrets come from: the embedded encrypted file, or OpenBao/Vault; key files are read by the broker only."""

    kind: Literal["embedded", "openbao"] = "embedded"
    file: Path | None = None
    key_file: Path | None = None
    openbao: OpenBaoConfig | None = None
    jwt_key_file: Path | None = None


class Caps(Strict):
    """The most that one sandbox of this environment may ask for."""

    vcpu: int = 4
    memory_mib: int = 4096
    disk_mib: int = 16384
    lifetime_s: int = 8 * 3600


class HostConfig(Strict):
    """Everything that a host needs to know about itself."""

    environment: str
    host: str
    state: str
    cache: str
    temporal: str
    namespace: str = "default"
    relay: str = ""
    relay_token_file: str = ""
    slots: int = Field(8, ge=1, le=4096)
    attempt: int = Field(0, ge=0)  # which machine of the host this is; 0: nobody made it
    connections: tuple[Connection, ...] = ()
    caps: Caps = Caps()
    secrets: SecretStore = SecretStore()
    policy_public_key: str
    audit_max_bytes: int = Field(1 << 30, ge=4 << 20)
    audit_segment_bytes: int = Field(16 << 20, ge=1 << 16)
    uid_base: int = Field(62000, ge=1000, le=1 << 30)
    default_shape: Shape = Shape()
    kernel: str = ""
    qemu: str = ""

    @property
    def paths(self) -> HostPaths:
        return HostPaths(Path(self.state))

    @property
    def policy_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(self.policy_public_key))


def load(file: Path) -> HostConfig:
    """The configuration in `file`; raises PaddockError that names the field which is wrong."""
    try:
        return HostConfig.model_validate_json(file.read_bytes())
    except OSError as wrong:
        raise PaddockError(
            ErrorKind.SET_UP, f"cannot read the host's configuration: {wrong}", field=str(file)
        ) from wrong
    except ValueError as wrong:
        raise PaddockError(ErrorKind.SET_UP, f"the host's configuration is wrong: {wrong}", field=str(file)) from wrong
