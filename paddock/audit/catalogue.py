"""Every kind of audit event: who acts, how it is recorded, what its detail holds. docs/audit-events.md is its print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from paddock.audit.event import Actor


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind; `strict`: durable before the action; `detail`: the fields it may hold, `!` marks required ones."""

    name: str
    actor: Actor
    strict: bool
    says: str
    detail: Mapping[str, str]


def _kind(name: str, actor: Actor, strict: bool, says: str, **detail: str) -> EventKind:
    return EventKind(name, actor, strict, says, detail)


_SUBJECT: Final = {"host": "!str", "port": "!int", "protocol": "!str", "method": "str", "path": "str"}

KINDS: Final[Mapping[str, EventKind]] = {
    kind.name: kind
    for kind in (
        _kind("audit.opened", "recorder", True, "The chain begins.", recorder="!str"),
        _kind("audit.reopened", "recorder", True, "A new recorder took the chain over.", torn_bytes="!int"),
        _kind(
            "audit.gap", "recorder", True, "Exactly so many buffered events are missing.", dropped="!int", why="!str"
        ),
        _kind("audit.violation", "recorder", True, "The supervisor broke the protocol and was cut off.", why="!str"),
        _kind("audit.sealed", "recorder", True, "The chain ends here; nothing comes after.", events="!int"),
        _kind("sandbox.booted", "supervisor", True, "The VM answers.", image="str", accel="str", parts_ms="object"),
        _kind("sandbox.ready", "supervisor", True, "Probes from inside proved the fence.", probes="!int"),
        _kind("sandbox.extended", "supervisor", True, "The lease was moved.", lease_end="!str"),
        _kind("sandbox.lost", "host", True, "Supervisor or VM died by themselves.", why="!str"),
        _kind("sandbox.ended", "supervisor", False, "The supervisor lets the VM go.", why="str"),
        _kind("policy.attached", "supervisor", True, "From here on the fence enforces this policy.", digest="!str"),
        _kind("task.started", "supervisor", False, "A program starts.", task="!int", argv="array", argv_sha256="str"),
        _kind("task.exited", "supervisor", False, "A program ended.", task="!int", exit="int", signal="int", why="str"),
        _kind("egress.intent", "guest", True, "An allowed request goes out next.", **_SUBJECT, inspected="bool"),
        _kind(
            "egress.outcome",
            "guest",
            False,
            "What became of an allowed request.",
            **_SUBJECT,
            inspected="bool",
            status="int",
            bytes_in="int",
            bytes_out="int",
            ms="float",
            ended="str",
        ),
        _kind("egress.denied", "guest", True, "A request was refused.", **_SUBJECT, reason="!str", words="str"),
        _kind("egress.finding", "guest", False, "A person should look at this.", **_SUBJECT, what="!str", count="int"),
        _kind("secret.used", "guest", True, "These secrets, by name, go into a request.", **_SUBJECT, refs="!array"),
        _kind("dns.denied", "guest", False, "A name that no rule allows.", host="!str", qtype="int", asked="int"),
    )
}


def problems(kind: str, detail: Mapping[str, object]) -> list[str]:
    """How `detail` departs from the catalogue; a kind that is not in it is one problem."""
    known = KINDS.get(kind)
    if known is None:
        return [f"{kind}: not in the catalogue"]
    found = [
        f"{kind}: {name} is missing" for name, type_ in known.detail.items() if "!" in type_ and name not in detail
    ]
    for name, value in detail.items():
        type_ = known.detail.get(name, "").lstrip("!")
        if not type_:
            found.append(f"{kind}: {name} is not in the catalogue")
        elif value is not None and not _fits(value, type_):
            found.append(f"{kind}: {name} is not of type {type_}")
    return found


def _fits(value: object, type_: str) -> bool:
    if isinstance(value, bool):
        return type_ == "bool"
    types: Mapping[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "array": (list, tuple),
        "object": (dict,),
    }
    return isinstance(value, types.get(type_, ()))


def actor_of(kind: str) -> Actor:
    """Who acts in an event of this kind when the caller does not say: the guest outside the catalogue's own."""
    known = KINDS.get(kind)
    if known is not None:
        return known.actor
    return "guest" if kind.partition(".")[0] in {"egress", "dns", "secret"} else "supervisor"


def document() -> str:
    """docs/audit-events.md."""
    head = """# Audit events

Every kind that a chain may hold, printed from `paddock/audit/catalogue.py`. A *strict* event is on disk before what it
says happens; others are buffered, and the count of those that had to be dropped is an `audit.gap`. Fields in bold are
always there. Around the kind's own `detail` every line has `v, project, host, sandbox, run, seq, ts, kind, actor,
on_behalf_of, decision, rule, policy_digest, prev, action_id`; `action_id` joins an intent with its outcome. Values of
secrets, queries of URLs and arguments of programs are never in an event.

| kind | actor | mode | is | detail |
|---|---|---|---|---|
"""
    return head + "".join(map(_row, KINDS.values()))


def _row(kind: EventKind) -> str:
    fields = ", ".join(
        f"**{name}** {type_[1:]}" if type_.startswith("!") else f"{name} {type_}" for name, type_ in kind.detail.items()
    )
    mode = "strict" if kind.strict else "buffer"
    return f"| `{kind.name}` | {kind.actor} | {mode} | {kind.says} | {fields} |\n"
