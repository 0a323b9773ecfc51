"""The operator's configuration of `paddock up --config FILE`: connections, caps, secret store."""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.spec import Shape
from paddock.egress.config import Connection
from paddock.host.config import Caps, SecretStore


class OperatorConfig(Strict):
    """What an operator, and nobody else, decides about this machine's environment."""

    connections: tuple[Connection, ...] = ()
    slots: int = Field(8, ge=1, le=4096)
    caps: Caps = Caps()
    secrets: SecretStore = SecretStore()
    default_shape: Shape = Shape()
    audit_max_bytes: int = Field(1 << 30, ge=4 << 20)
    kernel: Path | None = None
    qemu: Path | None = None


def load(file: Path | None) -> OperatorConfig:
    """The configuration in a YAML or JSON file; raises PaddockError that names each field which is wrong."""
    if file is None:
        return OperatorConfig()
    try:
        given = OperatorConfig.model_validate(yaml.safe_load(file.read_text()) or {})
        return given.model_copy(update={"connections": tuple(_from(file, c) for c in given.connections)})
    except OSError as wrong:
        raise PaddockError(
            ErrorKind.SET_UP, f"cannot read the configuration: {wrong.strerror}", field=str(file)
        ) from None
    except yaml.YAMLError as wrong:
        raise PaddockError(ErrorKind.SET_UP, f"the configuration is not YAML: {wrong}", field=str(file)) from None
    except ValidationError as wrong:
        words = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in wrong.errors())
        raise PaddockError(ErrorKind.SET_UP, f"the configuration is wrong: {words}", field=str(file)) from None


def _from(file: Path, connection: Connection) -> Connection:
    """A certificate's file is named from where the configuration lies, and is there."""
    if connection.ca is None:
        return connection
    ca = (file.absolute().parent / connection.ca).resolve()
    if not ca.is_file():
        raise PaddockError(
            ErrorKind.SET_UP, f"connections: {connection.name}: there is no certificate {ca}", field=str(file)
        )
    return connection.model_copy(update={"ca": ca})
