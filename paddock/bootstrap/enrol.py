"""The host's side: by its machine's identity, or by a join token, to Temporal's and the recorder's credentials, once.

The machine's identity opens a locker at the store, in which a wrapped token lies. Unwrapping it works once; what comes
out has few uses and a short life, and is given back at the end. Nothing but the credentials touches the disk.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import Field

from paddock.bootstrap.bao import Bao, BaoConfig, text_of
from paddock.bootstrap.certificate import Certificate, ask_for, standing_until
from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.files import write_secret
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.identity import Identity
from paddock.bootstrap.names import machine_name, machine_uri
from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ids import EnvironmentName, HostId

T = TypeVar("T")
log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 3.0


class Places(Strict):
    """The files that the credentials go to, each of mode 0600; what is not named is not asked for."""

    certificate: Path | None = None
    key: Path | None = None
    api_key: Path | None = None
    recorder: Path | None = None


class EnrolConfig(Strict):
    """What a machine knows of itself before it has any credential; no secret is in it. Times in seconds."""

    environment: EnvironmentName
    host: HostId
    attempt: int = Field(0, ge=0)
    store: BaoConfig
    audience: str = Field("", max_length=255)
    temporal: Literal["certificate", "api-key"] = "certificate"
    places: Places
    auth_mount: str = "machine"
    role: str = "host"
    kv_mount: str = "paddock"
    pki_mount: str = "pki"
    token_role: str = "paddock-host"
    certificate_s: int = Field(24 * 3600, ge=300, le=30 * 86_400)
    patience_s: float = Field(600.0, gt=0, le=7200)

    @property
    def name(self) -> str:
        return machine_name(self.host, self.attempt)

    @property
    def uri(self) -> str:
        return machine_uri(self.environment, self.host, self.attempt)

    def check(self) -> None:
        """Raises PaddockError SET_UP for credentials without a place."""
        places = self.places
        wanted = (places.certificate and places.key) if self.temporal == "certificate" else places.api_key
        if not wanted:
            words = f"temporal is {self.temporal!r}, and places does not say where that goes"
            raise PaddockError(ErrorKind.SET_UP, words, field="places")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a machine got; `until` is the end of its certificate (seconds since 1970), 0 for an API key."""

    name: str
    until: float
    files: tuple[Path, ...]
    already: bool = False


class Opener(Protocol):
    """A way to a wrapped token."""

    def open(self, config: EnrolConfig, bao: Bao) -> Hidden:
        """The wrapped token of this machine; raises NotYet or Refused."""


@dataclass(frozen=True, slots=True)
class ByIdentity:
    """The machine's own identity opens its locker."""

    identity: Identity

    def open(self, config: EnrolConfig, bao: Bao) -> Hidden:
        proof = self.identity.prove(config.audience)
        try:
            said = bao.ask(
                "POST",
                f"auth/{config.auth_mount}/login",
                "log this machine in",
                {"role": config.role, "jwt": proof.value},
            )
        except Refused as wrong:
            if _NO_KEYS in wrong.reason:
                raise NotYet("the secret store cannot get the keys by which this machine's cloud signs") from None
            words = f"this machine's identity was refused: {_why(wrong.reason)}"
            raise Refused(words, status=wrong.status, field=f"auth/{config.auth_mount}/role/{config.role}") from None
        token = Hidden(text_of(said, "auth", "client_token"))
        path = f"{config.kv_mount}/data/grants/{config.name}"
        try:
            locker = bao.ask("GET", path, "open this machine's locker", token=token)
        except Refused as wrong:
            if wrong.status not in {403, 404}:
                raise
            # The provider may not have told yet which machine it made.
            words = f"no grant as {config.name} is open for this machine"
            remedy = "is this the machine that was ordered under this name, and does its environment's worker run?"
            raise NotYet(words, field=config.name, remedy=remedy) from None
        return Hidden(text_of(locker, "data", "data", "wrapped"))


@dataclass(frozen=True, slots=True)
class ByJoinToken:
    """Somebody brought the wrapped token in a file, which is removed once it was used; never an argument."""

    file: Path = field(default=Path("join-token"))

    def open(self, config: EnrolConfig, bao: Bao) -> Hidden:
        del config, bao
        try:
            text = self.file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as wrong:
            raise Refused(
                f"the join token cannot be read: {type(wrong).__name__}",
                field=str(self.file),
                remedy="make one with `paddock host join` and put it there, mode 0600",
            ) from None
        if not text.isprintable() or not 1 <= len(text) <= 4096 or " " in text:
            raise Refused("the file holds no join token", field=str(self.file))
        return Hidden(text)


# What the store says of a token that it does not take, and our words for it: its own may quote the token's claims.
_WHYS = (
    ("is expired", "it has expired"),
    ("no issued at", "it never ends"),
    ("not yet valid", "it is not valid yet, by the store's clock"),
    ("issuer", "it has another issuer"),
    ("audience", "it is for another audience"),
    ("signature", "its signature is not its cloud's"),
    ("claim", "it is of another project, subscription, account, zone or identity"),
    ("role", "the store has no such role"),
)
_NO_KEYS = "fetching keys"


def _why(reason: str) -> str:
    lower = reason.lower()
    return next((words for mark, words in _WHYS if mark in lower), "the store does not take it")


class Enrolment:
    """One machine's way to its credentials; what was reached is kept while a later step is tried again."""

    def __init__(
        self,
        config: EnrolConfig,
        opener: Opener,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        config.check()
        self.config, self._opener = config, opener
        self._bao = Bao(config.store)
        self._clock, self._wait = clock, wait
        self._deadline = 0.0

    def run(self) -> Enrolled:
        """The credentials in their places, new ones unless those that lie there still hold.

        Raises Refused at once, NotYet with the last reason after `patience_s`, PaddockError SET_UP for a place that
        cannot be written.
        """
        if standing := self._standing():
            return standing
        self._deadline = self._clock() + self.config.patience_s
        token = self._patiently(self._token)
        try:
            files = self._patiently(lambda: self._credentials(token))
        finally:
            self._give_back(token)
        written = tuple(write_secret(place, text) for place, text, _ in files)
        if isinstance(self._opener, ByJoinToken):
            self._opener.file.unlink(missing_ok=True)
        until = max((ends for _, _, ends in files), default=0.0)
        log.info("enrolled as %s: %s", self.config.name, ", ".join(map(str, written)))
        return Enrolled(self.config.name, until, written)

    def _standing(self) -> Enrolled | None:
        places, until = self.config.places, 0.0
        if self.config.temporal == "certificate":
            assert places.certificate
            assert places.key
            until = standing_until(places.certificate, places.key, self.config.uri, time.time())
            files = [places.certificate, places.key]
            if not until:
                return None
        else:
            assert places.api_key
            files = [places.api_key]
        files += [places.recorder] if places.recorder else []
        if not all(file.is_file() and file.stat().st_size for file in files):
            return None
        return Enrolled(self.config.name, until, tuple(files), already=True)

    def _token(self) -> Hidden:
        wrapped = self._opener.open(self.config, self._bao)
        role, name = f"auth/token/create/{self.config.token_role}", self.config.name
        try:
            made = self._bao.ask("POST", "sys/wrapping/lookup", "look at the grant", {"token": wrapped.value})
            # Whoever took the grant could put another wrapped answer in its place.
            if text_of(made, "data", "creation_path") != role:
                raise Refused(f"the grant of {name} was not made as one: somebody may have replaced it", field=name)
            said = self._bao.ask("POST", "sys/wrapping/unwrap", "open the grant", {}, token=wrapped)
        except Refused as wrong:
            if not wrong.status:
                raise
            raise Refused(
                f"the grant of {name} was used before, or its time is over",
                status=wrong.status,
                field=name,
                remedy="if no answer was lost on the way to this machine, somebody else used it: end the machine",
            ) from None
        return Hidden(text_of(said, "auth", "client_token"))

    def _credentials(self, token: Hidden) -> list[tuple[Path, bytes, float]]:
        """All credentials, in memory: place, content, end."""
        config, places = self.config, self.config.places
        got: list[tuple[Path, bytes, float]] = []
        if config.temporal == "certificate":
            assert places.certificate
            assert places.key
            made: Certificate = ask_for(
                self._bao, token, f"{config.pki_mount}/sign/host", config.name, config.uri, config.certificate_s
            )
            got += [(places.key, made.key_pem, 0.0), (places.certificate, made.chain_pem, made.until)]
        else:
            assert places.api_key
            got.append((places.api_key, self._stored(token, "hosts/temporal", "api_key"), 0.0))
        if places.recorder:
            got.append((places.recorder, self._stored(token, "hosts/recorder", "value"), 0.0))
        return got

    def _stored(self, token: Hidden, path: str, name: str) -> bytes:
        where = f"{self.config.kv_mount}/data/{path}"
        try:
            said = self._bao.ask("GET", where, f"read {path}", token=token)
        except Refused as wrong:
            if wrong.status != 404:
                raise
            remedy = f"bao kv put -mount={self.config.kv_mount} {path} {name}=-"
            raise Refused(f"the secret store has no {path}", status=404, field=where, remedy=remedy) from None
        return text_of(said, "data", "data", name).encode()

    def _give_back(self, token: Hidden) -> None:
        """A token that cannot be given back dies by its uses and its time, and when the grant is closed."""
        try:
            self._bao.ask("POST", "auth/token/revoke-self", "take the token back", {}, token=token)
        except (NotYet, Refused) as wrong:
            log.warning("%s", wrong.info.message)

    def _patiently(self, step: Callable[[], T]) -> T:
        pause = FIRST_WAIT_S
        while True:
            try:
                return step()
            except NotYet as wrong:
                left = self._deadline - self._clock()
                if left <= 0:
                    raise
                log.info("%s; trying again for %d s", wrong.info.message, left)
                self._wait(min(pause, left))
                pause = min(2 * pause, LONGEST_WAIT_S)
