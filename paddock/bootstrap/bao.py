"""OpenBao or Vault by its HTTP API: one request a call, its refusals and silences in our words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field

from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.wire import fetch
from paddock.contracts.base import Strict

LATER = frozenset({307, 412, 429, 472, 473})


def _https_or_loopback(address: str) -> str:
    url = urlsplit(address)
    if (
        url.hostname
        and (url.port is None or url.port)
        and (url.scheme == "https" or (url.scheme == "http" and url.hostname in {"127.0.0.1", "::1", "localhost"}))
    ):
        return address.rstrip("/")
    raise ValueError("https://…, or http:// on loopback")


class BaoConfig(Strict):
    """Where the store is; `namespace` is the environment's own, `ca` the authority of its certificate."""

    address: Annotated[str, AfterValidator(_https_or_loopback)]
    namespace: str = Field("", pattern=r"^[A-Za-z0-9_/-]{0,128}$")
    ca: Path | None = None
    timeout_s: float = Field(5.0, gt=0, le=60)


class Bao:
    """A store; every call blocks its thread for `timeout_s` at most."""

    def __init__(self, config: BaoConfig) -> None:
        self.config = config

    def ask(
        self,
        method: str,
        path: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: Hidden | None = None,
        wrap_s: int = 0,
    ) -> dict[str, Any]:
        """The answer, empty for none; `what` says in errors what was asked.

        Raises NotYet (out of reach, sealed, busy) or Refused with the status. The store's own text goes into
        `Refused.reason` only.
        """
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            headers["X-Vault-Token"] = token.value
        if self.config.namespace:
            headers["X-Vault-Namespace"] = self.config.namespace
        if wrap_s:
            headers["X-Vault-Wrap-TTL"] = f"{wrap_s}s"
        address = self.config.address
        answer = fetch(
            f"{address}/v1/{quote(path)}",
            what="the secret store",
            timeout_s=self.config.timeout_s,
            method=method,
            headers=headers,
            body=None if body is None else json.dumps(body).encode(),
            ca=self.config.ca,
        )
        if answer.status == 503:
            words = f"the secret store is sealed or down and did not {what} (503)"
            raise NotYet(words, field=address, remedy="unseal it: `bao operator unseal`")
        if answer.status >= 500 or answer.status in LATER:
            raise NotYet(f"the secret store did not {what} ({answer.status})", field=address)
        said = _parsed(answer.body)
        if answer.status >= 300:
            errors = said.get("errors") if said else None
            reason = " ".join(map(str, errors)) if isinstance(errors, list) else ""
            words = f"the secret store refused to {what} ({answer.status})"
            raise Refused(words, status=answer.status, reason=reason[:4096], field=address)
        if said is None:
            raise NotYet(f"the secret store's answer is no JSON object: it did not {what}", field=address)
        return said


def _parsed(body: bytes) -> dict[str, Any] | None:
    """A JSON object; {} for an empty body, None for anything else."""
    if not body.strip():
        return {}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def text_of(said: Mapping[str, Any], *path: str) -> str:
    """The text below `path`; raises NotYet for an answer that lacks it."""
    value: Any = said
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if not isinstance(value, str) or not value:
        raise NotYet(f"the secret store's answer has no {'.'.join(path)}")
    return value


def number_of(said: Mapping[str, Any], *path: str) -> int:
    """As `text_of`, for a whole number."""
    value: Any = said
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if not isinstance(value, int):
        raise NotYet(f"the secret store's answer has no {'.'.join(path)}")
    return value
