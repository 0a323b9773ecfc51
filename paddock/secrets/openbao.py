"""OpenBao and Vault: KV version 2, one token a sandbox from a short JWT, revoked and seen to be refused."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import hvac
import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hvac import exceptions as refusals
from pydantic import AfterValidator, Field

from paddock.contracts.base import Strict
from paddock.secrets.store import Ended, Forbidden, Secret, SecretUnavailable

JWT_LIFE_S = 60
NEVER_S = 10 * 365 * 86400.0
SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey


def _https_or_loopback(address: str) -> str:
    url = urlsplit(address)
    if url.scheme == "https" or (url.scheme == "http" and url.hostname in {"127.0.0.1", "::1", "localhost"}):
        return address.rstrip("/")
    raise ValueError("https://…, or http:// on loopback")


class OpenBaoConfig(Strict):
    """Where the store is and by which names Paddock knows it; times in seconds.

    Secret `ref` is the path `prefix/ref` of the KV mount; its value is the field `field`.
    `role` is the JWT role whose policy reads there; `reaper_role`, when given, may revoke and look up by accessor.
    """

    address: Annotated[str, AfterValidator(_https_or_loopback)]
    mount: str = "secret"
    prefix: str = "paddock"
    field: str = "value"
    auth_mount: str = "jwt"
    role: str = "paddock-sandbox"
    reaper_role: str = ""
    audience: str = "paddock"
    namespace: str = ""
    ca: Path | None = None
    timeout_s: float = Field(3.0, gt=0, le=60)
    cache_s: float = Field(60.0, ge=0, le=3600)


def load_signing_key(pem: bytes) -> SigningKey:
    """The broker's private key: P-256 or Ed25519, PEM."""
    key = load_pem_private_key(pem, None)
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ValueError("the broker's key is P-256 or Ed25519")


def make_jwt(key: SigningKey, *, subject: str, audience: str, now: float) -> str:
    """A JWT (RFC 7519) for `subject`, valid for a minute."""
    algorithm = "ES256" if isinstance(key, EllipticCurvePrivateKey) else "EdDSA"
    claims = {"sub": subject, "aud": audience, "iat": int(now), "nbf": int(now) - 5, "exp": int(now) + JWT_LIFE_S}
    signed = f"{_b64(_json({'alg': algorithm, 'typ': 'JWT'}))}.{_b64(_json(claims))}"
    if isinstance(key, EllipticCurvePrivateKey):
        # RFC 7518, 3.4: r and s as 32 bytes each, not the DER that cryptography makes.
        r, s = decode_dss_signature(key.sign(signed.encode(), ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    else:
        signature = key.sign(signed.encode())
    return f"{signed}.{_b64(signature)}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """The store's refusals and silences as SecretUnavailable; the store's own texts are left out, they may quote us."""
    try:
        yield
    except refusals.Forbidden:
        raise Forbidden(f"the secret store refused to {what} (403)") from None
    except refusals.InvalidPath:
        raise SecretUnavailable(f"the secret store has nothing to {what} (404)") from None
    except refusals.RateLimitExceeded:
        raise SecretUnavailable(f"the secret store limits our rate and did not {what} (429)") from None
    except refusals.VaultDown:
        words = f"the secret store is sealed or down and did not {what} (503)"
        raise SecretUnavailable(words, "unseal it: `bao operator unseal`") from None
    except refusals.VaultError as error:
        raise SecretUnavailable(f"the secret store did not {what} ({type(error).__name__})") from None
    except requests.exceptions.Timeout:
        raise SecretUnavailable(f"the secret store did not answer in time to {what}") from None
    except requests.exceptions.SSLError:
        raise SecretUnavailable(f"the secret store's certificate was not accepted, so it could not {what}") from None
    except requests.exceptions.RequestException as error:
        raise SecretUnavailable(f"the secret store can't be reached to {what} ({type(error).__name__})") from None


class OpenBaoStore:
    """A store reached by HTTP; every call has a timeout and blocks its thread."""

    def __init__(
        self, config: OpenBaoConfig, key: SigningKey, host: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self._key = key
        self._host = host
        self.clock = clock

    def open(self, sandbox: str) -> "OpenBaoSession":
        """Log in as this sandbox."""
        return OpenBaoSession(self, self._login(self.config.role, sandbox), sandbox)

    def end_by_accessor(self, accessor: str) -> Ended:
        """Revoke the token behind an accessor, as the reaper."""
        if not self.config.reaper_role:
            raise SecretUnavailable(
                "a token of an earlier broker is left, and no reaper_role is configured to revoke it"
            )
        with _in_words("let the reaper in"):
            reaper = self._login(self.config.reaper_role, f"paddock-reaper/{self._host}")
        try:
            with _in_words("revoke a token by its accessor"):
                try:
                    reaper.auth.token.revoke_accessor(accessor)
                except (refusals.InvalidRequest, refusals.InvalidPath):
                    pass
                except refusals.Forbidden as error:
                    # Of a token that is gone the store says "invalid accessor"; whether it is gone is asked below.
                    if "invalid accessor" not in str(error):
                        raise
                return _look_up(reaper, accessor)
        finally:
            _let_go(reaper)

    def client(self, token: str = "") -> Any:
        """An hvac client with this store's address, trust, timeout and namespace."""
        config = self.config
        trust = str(config.ca) if config.ca else True
        return hvac.Client(
            url=config.address,
            token=token,
            verify=trust,
            timeout=config.timeout_s,
            allow_redirects=False,
            namespace=config.namespace or None,
            session=_session(trust),
        )

    def _login(self, role: str, subject: str) -> Any:
        client = self.client()
        with _in_words("log a sandbox in"):
            jwt = make_jwt(self._key, subject=subject, audience=self.config.audience, now=self.clock())
            client.auth.jwt.jwt_login(role=role, jwt=jwt, path=self.config.auth_mount)
        return client


def _session(trust: str | bool) -> requests.Session:
    """No proxy, netrc or CA bundle of the surrounding environment ever speaks for us."""
    session = requests.Session()
    session.trust_env = False
    # A session given to hvac must carry the trust itself.
    session.verify = trust
    return session


def _look_up(reaper: Any, accessor: str) -> Ended:
    try:
        reaper.auth.token.lookup_accessor(accessor)
    except (refusals.InvalidRequest, refusals.InvalidPath):
        return Ended(True, "the store no longer knows the token's accessor")
    except refusals.Forbidden as error:
        if "invalid accessor" in str(error):
            return Ended(True, "the store no longer knows the token's accessor")
        return Ended(False, "the reaper may not look accessors up")
    return Ended(False, "the store still knows the token's accessor")


def _let_go(client: Any) -> None:
    """The reaper's own token is not kept; when this fails it dies by its TTL."""
    try:
        client.auth.token.revoke_self()
    except (refusals.VaultError, requests.exceptions.RequestException):
        pass
    client.adapter.close()


class OpenBaoSession:
    """One sandbox's token, in this process's memory only."""

    def __init__(self, store: OpenBaoStore, client: Any, sandbox: str) -> None:
        self._store = store
        self._client = client
        self._sandbox = sandbox
        with _in_words("say how long a token lives"):
            self._take(client.auth.token.lookup_self()["data"])

    @property
    def accessor(self) -> str:
        return self._accessor

    def _take(self, data: dict[str, Any]) -> None:
        now = self._store.clock()
        ttl = float(data.get("ttl") or 0)
        self._accessor = str(data.get("accessor") or "")
        self._expires_at = now + (ttl or NEVER_S)
        # Two thirds of its life, and up to a tenth earlier so that sandboxes do not all come at once.
        jitter = (hash(self._accessor) % 100) / 1000
        self._renew_at = now + ttl * (0.66 - jitter) if ttl and data.get("renewable") else None

    def read(self, ref: str) -> Secret:
        config = self._store.config
        path = f"{config.prefix}/{ref}" if config.prefix else ref
        with _in_words(f"read {ref}"):
            answer = self._client.secrets.kv.v2.read_secret_version(
                path, mount_point=config.mount, raise_on_deleted_version=True
            )
        data = answer["data"]["data"]
        value = data.get(config.field)
        if not isinstance(value, str) or not value:
            words = f"secret {ref} has no text in its field {config.field!r}"
            raise SecretUnavailable(words, f"bao kv put {config.mount}/{path} {config.field}=-")
        return Secret(value.encode(), min(self._store.clock() + config.cache_s, self._expires_at))

    def renew_at(self) -> float | None:
        return self._renew_at

    def renew(self) -> None:
        self._renew_at = None
        with _in_words("renew a token"):
            self._client.auth.token.renew_self()
            self._take(self._client.auth.token.lookup_self()["data"])

    def end(self) -> Ended:
        with _in_words("revoke a token"):
            try:
                self._client.auth.token.revoke_self()
            except refusals.Forbidden:
                pass  # Expired or revoked before; the next question tells.
            try:
                self._client.auth.token.lookup_self()
            except refusals.Forbidden:
                self._client.token = None
                self._client.adapter.close()
                return Ended(True, "the store refuses the token (403)")
        return Ended(False, "the store still takes the token")
