"""Audit events: what a supervisor may say, and the one canonical line that is stored and hashed."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, StringConstraints

from paddock.contracts.base import Strict, Wire
from paddock.contracts.errors import ErrorKind, PaddockError

VERSION: Final = 1
MAX_LINE_BYTES: Final = 64 << 10
GENESIS: Final = "00" * 32

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$", max_length=64)]
SandboxName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Actor = Literal["guest", "supervisor", "host", "operator", "recorder"]


class AuditUnavailable(PaddockError):
    """An event could not be made durable; whoever wanted to act on it must not."""

    def __init__(self, why: str) -> None:
        super().__init__(
            ErrorKind.AUDIT_UNAVAILABLE,
            f"the audit event could not be recorded: {why}",
            remedy="the action was refused; see the recorder's log and the free space of its directory",
        )


class Said(Strict):
    """What a supervisor says about one event; the recorder adds who, where, when and the place in the chain."""

    kind: Kind
    decision: str = Field("", max_length=32)
    rule: str = Field("", max_length=256)
    action_id: str = Field("", max_length=128)
    policy_digest: str = Field("", max_length=96)
    actor: Actor | None = None
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class Owner(Wire):
    """Whose sandbox this is, as the keeper said when it handed the recorder the socket."""

    project: str = "default"
    owner: str = ""
    run: str = ""


class Line(Wire):
    """The fields of a stored line that readers rely on; `detail` is specific to the kind."""

    v: int
    project: str
    host: str
    sandbox: str
    run: str
    seq: int
    ts: str
    kind: str
    actor: str
    on_behalf_of: str
    decision: str
    rule: str
    policy_digest: str
    prev: str
    action_id: str
    detail: dict[str, JsonValue]


def timestamp(now: float) -> str:
    """RFC 3339 UTC with microseconds, of `now` in seconds since 1970."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def line(said: Said, *, actor: str, owner: Owner, host: str, sandbox: str, seq: int, prev: str, now: float) -> bytes:
    """The canonical line, without its newline; ValueError over 64 KiB or when it is not JSON."""
    event = {
        "action_id": said.action_id,
        "actor": said.actor or actor,
        "decision": said.decision,
        "detail": said.detail,
        "host": host,
        "kind": said.kind,
        "on_behalf_of": owner.owner,
        "policy_digest": said.policy_digest,
        "prev": prev,
        "project": owner.project,
        "rule": said.rule,
        "run": owner.run,
        "sandbox": sandbox,
        "seq": seq,
        "ts": timestamp(now),
        "v": VERSION,
    }
    text = canonical(event)
    if len(text) > MAX_LINE_BYTES:
        raise ValueError(f"an event of {len(text)} bytes; at most {MAX_LINE_BYTES}: put large bodies in by digest")
    return text


def canonical(value: object) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, no spaces, no NaN."""
    return _encode(value).encode()


def identity(said: "Said | Line") -> bytes:
    """16 bytes that are the same for an event and for its repetition: its action, kind and content.

    Content is part of it so that two different events of one action are both kept.
    """
    content = canonical([said.action_id, said.kind, said.decision, said.rule, said.policy_digest, said.detail])
    return hashlib.sha256(content).digest()[:16]
