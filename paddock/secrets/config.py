"""Which store a host's broker uses, and what opens it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from paddock.contracts.base import Strict
from paddock.secrets.embedded import EmbeddedStore
from paddock.secrets.openbao import OpenBaoConfig, OpenBaoStore, load_signing_key
from paddock.secrets.store import SecretUnavailable, Store


class BrokerConfig(Strict):
    """Which store a host's broker uses, and where it keeps the accessors of the tokens that are out."""

    state_dir: Path
    host: str = "local"
    store: Literal["embedded", "openbao"] = "embedded"
    file: Path | None = None
    openbao: OpenBaoConfig | None = None

    @model_validator(mode="after")
    def _complete(self) -> "BrokerConfig":
        if self.store == "embedded" and self.file is None:
            raise ValueError("file: the embedded store needs one")
        if self.store == "openbao" and self.openbao is None:
            raise ValueError("openbao: address and roles are missing")
        return self


@dataclass(frozen=True, slots=True)
class StoreCredentials:
    """What opens the store: the embedded file's key, or the PEM key that signs JWTs. Only the broker holds them."""

    file_key: bytes | None = field(default=None, repr=False)
    jwt_key: bytes | None = field(default=None, repr=False)


def make_store(config: BrokerConfig, credentials: StoreCredentials) -> Store:
    """The configured store; raises PaddockError when its key is missing or unfit."""
    if config.store == "openbao" and config.openbao is not None:
        try:
            return OpenBaoStore(config.openbao, load_signing_key(credentials.jwt_key or b""), config.host)
        except ValueError:
            raise SecretUnavailable("the broker's JWT key is missing or is no P-256 or Ed25519 PEM key") from None
    if config.file is None or credentials.file_key is None:
        raise SecretUnavailable("the embedded store's file or key is missing")
    return EmbeddedStore(config.file, credentials.file_key)
