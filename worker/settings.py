"""One environment's configuration file: where its machines come from, how many, and what its hosts are told."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ground import Attempt
from paddock.contracts.ids import EnvironmentName
from paddock.contracts.pool import PoolSpec
from paddock.host.config import HostConfig
from providers.contract import HostProvider, ProviderError
from providers.registry import check_choices, provider

CONFIG = "/etc/paddock/host.json"  # where a host's image looks for it
OF_THE_MACHINE = {"environment": "local", "host": "h-1", "state": "/var/lib/paddock", "attempt": 1}


class Settings(Strict):
    """The file, as TOML or JSON: `[provider]` with its `kind`, `[pool]`, and `[host]`, what every host is told."""

    environment: EnvironmentName
    controller: str = Field("paddock", pattern=r"^[a-z0-9][-_a-z0-9]{0,62}$")
    provider: dict[str, Any] = {"kind": "joined"}
    pool: PoolSpec | None = None
    host: dict[str, Any] = {}

    @field_validator("host")
    @classmethod
    def _host(cls, host: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(OF_THE_MACHINE) & set(host)):
            raise ValueError(f"{', '.join(taken)}: each machine has its own")
        if host:
            HostConfig.model_validate({**host, **OF_THE_MACHINE})
        return host

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        """What is said twice is said alike: a pool that counts other slots than its hosts have never fits."""
        if self.pool is None:
            return self
        if self.pool.environment != self.environment:
            raise ValueError(
                f"pool.environment is {self.pool.environment}, and environment {self.environment}: drop one"
            )
        slots = self.host.get("slots", self.pool.slots)
        if slots != self.pool.slots:
            raise ValueError(f"host.slots is {slots}, and pool.slots {self.pool.slots}: leave out host.slots")
        return self

    def make_provider(self) -> HostProvider:
        """Raises PaddockError in words: settings that are wrong, credentials or a choice's place that are missing."""
        given = dict(self.provider)
        kind = str(given.pop("kind", "joined"))
        try:
            made = provider(kind, given)
        except ProviderError as wrong:
            raise PaddockError(
                ErrorKind.SET_UP,
                f"environment {self.environment} has no provider: {wrong}",
                field=f"provider.{wrong.code}" if wrong.code else "provider",
            ) from None
        try:
            check_choices(kind, given, self.pool.choices if self.pool else ())
        except ProviderError as wrong:
            words = f"the pool of {self.environment} can never have a machine by its choice {wrong}"
            raise PaddockError(ErrorKind.SET_UP, words, field="pool.choices") from None
        return made

    def user_data(self) -> Callable[[Attempt], str]:
        """What a machine is told of itself, as cloud-init reads it: who it is, its pool's slots, and no secret."""
        slots = {"slots": self.pool.slots} if self.pool else {}

        def told(attempt: Attempt) -> str:
            own = {"environment": attempt.environment, "host": attempt.host, "attempt": attempt.attempt}
            config = {**OF_THE_MACHINE, **slots, **self.host, **own}
            file = {"path": CONFIG, "permissions": "0644", "content": json.dumps(config)}
            return "#cloud-config\n" + json.dumps({"write_files": [file]}) + "\n"  # JSON is YAML

        return told


def load(file: Path) -> Settings:
    """The settings in `file`. Raises PaddockError that names the field which is wrong."""
    try:
        text = file.read_text()
        given = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as wrong:
        words = f"cannot read the environment's settings: {wrong}"
        raise PaddockError(ErrorKind.SET_UP, words, field=str(file)) from None
    if not isinstance(given, dict):
        raise PaddockError(ErrorKind.SET_UP, "the environment's settings are no table", field=str(file))
    if isinstance(given.get("pool"), dict):
        given["pool"] = {"environment": given.get("environment"), **given["pool"]}
    try:
        return Settings.model_validate(given)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PaddockError(
            ErrorKind.SET_UP,
            f"the environment's settings are wrong: {first['msg']}",
            field=f"{file}: {where}" if where else str(file),
        ) from None
