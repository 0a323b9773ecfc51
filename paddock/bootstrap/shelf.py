"""What a grant is made of at the store, part by part: record, entity with aliases, locker, tokens."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from paddock.bootstrap.bao import Bao, BaoConfig, number_of, text_of
from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.names import machine_name
from paddock.contracts.base import Strict, Wire
from paddock.contracts.ids import HostId

# Enough for the credentials, with some calls tried again; its life goes on that long after the last moment to begin.
USES, AFTER_S = 8, 300
MADE_UP = "entity_"  # how the store names the entity of a machine that it did not know


class GrantsConfig(Strict):
    """An environment's store, and the file with the environment worker's own token, read anew at each use."""

    store: BaoConfig
    token_file: Path
    auth_mount: str = "machine"
    kv_mount: str = "paddock"
    token_role: str = "paddock-host"
    policy: str = "paddock-host"


class Grant(Wire):
    """A grant as the store remembers it, also when it is closed; no secret is in it.

    `ends` is the end of its time, of a closed one when that was.
    """

    host: HostId
    attempt: int = Field(ge=0)
    state: Literal["open", "closed"]
    instance: str = ""
    ends: datetime
    wrapping: str = Field("", description="Accessor of the wrapped token: it can end it, and not use it.")
    token: str = Field("", description="Accessor of the token inside.")
    why: str = ""

    @property
    def name(self) -> str:
        return machine_name(self.host, self.attempt)


class Shelf:
    """An environment's part of the store, with the environment worker's token. Each call raises NotYet and Refused."""

    def __init__(self, config: GrantsConfig) -> None:
        self.config = config
        self._bao = Bao(config.store)

    # Records

    def record(self, name: str) -> tuple[Grant | None, int]:
        """What the store remembers of a grant, with its version; None, 0 for nothing."""
        said = self._look(f"{self.config.kv_mount}/data/attempts/{name}", f"look for the grant of {name}")
        if said is None:
            return None, 0
        try:
            grant = Grant.model_validate_json(text_of(said, "data", "data", "grant"))
        except ValidationError:
            raise Refused(f"the record of {name}'s grant cannot be read", field=name) from None
        return grant, number_of(said, "data", "metadata", "version")

    def write(self, grant: Grant, version: int) -> None:
        """Remember it, unless somebody changed version `version` meanwhile: that raises NotYet."""
        self._put(f"attempts/{grant.name}", {"grant": grant.model_dump_json()}, version, f"remember {grant.name}")

    def names(self) -> tuple[str, ...]:
        said = self._look(f"{self.config.kv_mount}/metadata/attempts", "list grants", "LIST")
        return tuple(map(str, said.get("data", {}).get("keys", []))) if said else ()

    def forget(self, name: str) -> None:
        self._delete(f"{self.config.kv_mount}/metadata/attempts/{name}", f"forget the grant of {name}")

    # Lockers

    def wrapped(self, name: str) -> Hidden | None:
        said = self._look(f"{self.config.kv_mount}/data/grants/{name}", f"look into the locker of {name}")
        return Hidden(text_of(said, "data", "data", "wrapped")) if said else None

    def fill(self, name: str, wrapped: Hidden) -> None:
        self._put(f"grants/{name}", {"wrapped": wrapped.value}, 0, f"fill the locker of {name}")

    def empty(self, name: str) -> None:
        self._delete(f"{self.config.kv_mount}/metadata/grants/{name}", f"empty the locker of {name}")

    # Entities

    def end_entity(self, name: str) -> None:
        self._delete(f"identity/entity/name/{name}", f"end the entity of {name}")

    def new_entity(self, name: str, instance: str) -> None:
        """The entity of a machine, tied to what its cloud calls it ("" for none) and to the tokens made for it."""
        mount = f"{self.config.auth_mount}/"
        if instance:
            self._release(name, instance)
        self.end_entity(name)
        self._ask("POST", f"identity/entity/name/{name}", f"name {name}", {"metadata": {"machine": name}})
        entity = text_of(self._ask("GET", f"identity/entity/name/{name}", f"look at {name}"), "data", "id")
        for where, alias in {"token/": name, mount: instance}.items():
            if alias:
                asked = {"name": alias, "canonical_id": entity, "mount_accessor": self._accessors[where]}
                self._ask("POST", "identity/entity-alias", f"tie {name} to its machine", asked)

    def _release(self, name: str, instance: str) -> None:
        """Free an instance's name from an entity that the store made up; raises Refused when it has a grant."""
        asked = {"alias_name": instance, "alias_mount_accessor": self._accessors[f"{self.config.auth_mount}/"]}
        found = self._ask("POST", "identity/lookup/entity", "look for the machine", asked).get("data") or {}
        other = str(found.get("name", ""))
        if other in {"", name}:
            return
        if not other.startswith(MADE_UP):
            raise Refused(f"{instance} has a grant as {other} already: close that first", field=name)
        self._delete(f"identity/entity/id/{found['id']}", f"end the entity of {instance}")

    def forget_strays(self) -> int:
        """End the entities that the store made up for machines that logged in without a grant."""
        said = self._look("identity/entity/id", "list entities", "LIST")
        known = said.get("data", {}).get("key_info", {}) if said else {}
        strays = [id for id, info in known.items() if str(info.get("name", "")).startswith(MADE_UP)]
        for id in strays:
            self._delete(f"identity/entity/id/{id}", "end an entity without a grant")
        return len(strays)

    # Tokens

    def mint(self, name: str, lives_s: int) -> tuple[Hidden, str, str]:
        """A wrapped token for the entity `name`; its accessor, and that of the token inside."""
        config = self.config
        asked = {
            "policies": [config.policy],
            "no_default_policy": True,
            "entity_alias": name,
            "meta": {"machine": name},
            "num_uses": USES,
            "ttl": f"{lives_s + AFTER_S}s",
            "explicit_max_ttl": f"{lives_s + AFTER_S}s",
        }
        path = f"auth/token/create/{config.token_role}"
        said = self._ask("POST", path, f"make a grant for {name}", asked, wrap_s=lives_s)
        wrapped = Hidden(text_of(said, "wrap_info", "token"))
        return wrapped, text_of(said, "wrap_info", "accessor"), text_of(said, "wrap_info", "wrapped_accessor")

    def revoke(self, grant: Grant) -> None:
        for accessor in (grant.wrapping, grant.token):
            if accessor:
                try:
                    self._ask("POST", "auth/token/revoke-accessor", "revoke a token", {"accessor": accessor})
                except Refused as wrong:
                    if "invalid accessor" not in wrong.reason:
                        raise

    def left(self, grant: Grant, wrapped: Hidden | None) -> list[str]:
        """What of a grant the store still has; `wrapped` is tried, and works no more after that."""
        left = [
            words
            for accessor, words in ((grant.wrapping, "its wrapped token"), (grant.token, "the token from it"))
            if accessor and self._knows_token(accessor)
        ]
        if self._look(f"identity/entity/name/{grant.name}", "look for what was ended"):
            left.append("its entity")
        if self._look(f"{self.config.kv_mount}/data/grants/{grant.name}", "look for what was ended"):
            left.append("its locker")
        if wrapped and self._opens(wrapped):
            left.append("a way to use it")
        return left

    def _knows_token(self, accessor: str) -> bool:
        try:
            self._ask("POST", "auth/token/lookup-accessor", "look for a token", {"accessor": accessor})
        except Refused as wrong:
            if "invalid accessor" not in wrong.reason:
                raise
            return False
        return True

    def _opens(self, wrapped: Hidden) -> bool:
        try:
            self._bao.ask("POST", "sys/wrapping/unwrap", "open a closed grant", {}, token=wrapped)
        except Refused:
            return False
        return True

    # Requests

    @cached_property
    def _accessors(self) -> dict[str, str]:
        """The accessors of the two mounts whose names for a machine are tied together."""
        said = self._ask("GET", "sys/auth", "list its ways to log in")
        return {mount: text_of(said, "data", mount, "accessor") for mount in (f"{self.config.auth_mount}/", "token/")}

    def _put(self, path: str, data: Mapping[str, str], version: int, what: str) -> None:
        body = {"options": {"cas": version}, "data": data}
        try:
            self._ask("POST", f"{self.config.kv_mount}/data/{path}", what, body)
        except Refused as wrong:
            if "check-and-set" in wrong.reason:
                raise NotYet(f"somebody else was faster to {what}", field=path) from None
            raise

    def _look(self, path: str, what: str, method: str = "GET") -> dict[str, Any] | None:
        """The answer; None for "there is no such"."""
        try:
            return self._ask(method, path, what)
        except Refused as wrong:
            if wrong.status != 404:
                raise
            return None

    def _delete(self, path: str, what: str) -> None:
        self._look(path, what, "DELETE")

    def _ask(
        self, method: str, path: str, what: str, body: Mapping[str, Any] | None = None, *, wrap_s: int = 0
    ) -> dict[str, Any]:
        return self._bao.ask(method, path, what, body, token=self._own_token(), wrap_s=wrap_s)

    def _own_token(self) -> Hidden:
        place = self.config.token_file
        try:
            text = place.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as wrong:
            words = f"the environment worker's token cannot be read: {type(wrong).__name__}"
            raise NotYet(words, field=str(place), remedy="docs/bootstrap.md says who puts it there") from None
        if not text.isprintable() or not text:
            raise Refused("the environment worker's token file holds no token", field=str(place))
        return Hidden(text)
