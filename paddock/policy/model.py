"""What a policy document says, as values: rules, what they match, and the secrets bound to them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DENY_ALL: Final = "deny-all"
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Protocol(StrEnum):
    """What the gateway speaks with the target: inspected HTTP/1.1, TLS spliced by its SNI, or a spliced TCP stream."""

    HTTP = "http"
    TLS = "tls"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Match:
    """Methods and a path glob; `methods` is sorted, and empty when the document says `*`."""

    methods: tuple[str, ...]
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One network rule; `host` is canonical, with `*.` before it when it covers every name below."""

    id: str
    host: str
    port: int
    protocol: Protocol
    allow: tuple[Match, ...]
    deny: tuple[Match, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the store, bound to one rule and one header; `scheme` is `bearer` or `header` (the bare value)."""

    ref: str
    rule: str
    header: str
    scheme: str
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """A policy document without a fault, its rules sorted by id."""

    name: str
    file: str
    rules: tuple[Rule, ...]
    secrets: tuple[Secret, ...]
