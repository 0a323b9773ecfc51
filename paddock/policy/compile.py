"""The compiled policy: one flat, canonical, digest-stamped form, and the indexes that answer from it."""

import json
from functools import cached_property
from typing import Literal

from pydantic import Field, ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ids import digest
from paddock.policy.index import Index
from paddock.policy.model import DENY_ALL, Document, Match, Protocol, Rule, Secret


class FlatMatch(Strict):
    """Methods (empty: all) and a path glob, with the line it came from."""

    methods: tuple[str, ...]
    path: str
    line: int


class FlatSecret(Strict):
    """A secret reference and the header it goes to."""

    ref: str
    header: str
    scheme: Literal["bearer", "header"]
    line: int


class FlatRule(Strict):
    """One rule with its secrets."""

    id: str
    host: str
    port: int = Field(ge=1, le=65535)
    protocol: Protocol
    allow: tuple[FlatMatch, ...]
    deny: tuple[FlatMatch, ...]
    secrets: tuple[FlatSecret, ...]
    line: int


class Flat(Strict):
    """What is enforced, entirely: rules sorted by id, each with its source line in `file`."""

    format: Literal["paddock-policy/1"] = "paddock-policy/1"
    name: str
    revision: int = Field(ge=0)
    file: str
    rules: tuple[FlatRule, ...]


class Compiled:
    """An immutable policy ready to decide; equal digests mean equal decisions, whoever compiled it."""

    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        self.index = Index(_rules(flat), _secrets(flat))

    @property
    def name(self) -> str:
        return self.flat.name

    @property
    def revision(self) -> int:
        return self.flat.revision

    @cached_property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON."""
        return digest(self.to_json().encode())

    @property
    def secret_refs(self) -> frozenset[str]:
        """Every secret that some rule may use."""
        return frozenset(secret.ref for rule in self.flat.rules for secret in rule.secrets)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        return canonical_json(self.flat.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Compiled":
        """The policy that `to_json` wrote. Raises PaddockError for anything else."""
        try:
            return cls(Flat.model_validate_json(text))
        except ValidationError as error:
            raise PaddockError(ErrorKind.BAD_POLICY, f"not a compiled policy: {error.error_count()} faults") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compiled) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Compiled {self.name}@{self.revision}, {len(self.flat.rules)} rules, {self.digest[:19]}>"


def compile_policy(document: Document, *, name: str = "", revision: int = 0) -> Compiled:
    """The compiled form of a document; `name` defaults to the document's own."""
    bound: dict[str, list[FlatSecret]] = {}
    for secret in document.secrets:
        flat = FlatSecret(
            ref=secret.ref,
            header=secret.header,
            scheme="bearer" if secret.scheme == "bearer" else "header",
            line=secret.line,
        )
        bound.setdefault(secret.rule, []).append(flat)
    rules = tuple(
        FlatRule(
            id=rule.id,
            host=rule.host,
            port=rule.port,
            protocol=rule.protocol,
            allow=_flat_matches(rule.allow),
            deny=_flat_matches(rule.deny),
            secrets=tuple(sorted(bound.get(rule.id, []), key=lambda s: (s.header, s.ref))),
            line=rule.line,
        )
        for rule in sorted(document.rules, key=lambda r: r.id)
    )
    return Compiled(Flat(name=name or document.name, revision=revision, file=document.file, rules=rules))


def deny_all() -> Compiled:
    """The built-in policy under which nothing passes."""
    return Compiled(Flat(name=DENY_ALL, revision=0, file="", rules=()))


def canonical_json(value: object) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flat_matches(matches: tuple[Match, ...]) -> tuple[FlatMatch, ...]:
    flat = (FlatMatch(methods=match.methods, path=match.path, line=match.line) for match in matches)
    return tuple(sorted(flat, key=lambda m: (m.path, m.methods, m.line)))


def _rules(flat: Flat) -> list[Rule]:
    def matches(found: tuple[FlatMatch, ...]) -> tuple[Match, ...]:
        return tuple(Match(m.methods, m.path, m.line) for m in found)

    return [Rule(r.id, r.host, r.port, r.protocol, matches(r.allow), matches(r.deny), r.line) for r in flat.rules]


def _secrets(flat: Flat) -> list[Secret]:
    return [Secret(s.ref, r.id, s.header, s.scheme, s.line) for r in flat.rules for s in r.secrets]
