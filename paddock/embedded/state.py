"""The state directory of one machine: where it is by default, and what lies where."""

from dataclasses import dataclass
from pathlib import Path

from paddock.client.discover import UP_FILE, state_dir


def default_state_dir() -> Path:
    """`$PADDOCK_STATE`, or `paddock` in the user's state directory: where the client looks too."""
    return state_dir()


@dataclass(frozen=True, slots=True)
class State:
    """Files and directories of one `paddock up`."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "up.lock"

    @property
    def ready(self) -> Path:
        return self.root / UP_FILE

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def policy_key(self) -> Path:
        return self.keys / "policy.key"

    @property
    def secrets_key(self) -> Path:
        return self.keys / "secrets.key"

    @property
    def relay_token(self) -> Path:
        return self.keys / "relay.token"

    @property
    def policies(self) -> Path:
        return self.root / "policies"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def secrets_file(self) -> Path:
        return self.secrets / "store.json"

    @property
    def temporal(self) -> Path:
        return self.root / "temporal"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def host(self) -> Path:
        return self.root / "host"

    @property
    def host_config(self) -> Path:
        return self.root / "host.json"
