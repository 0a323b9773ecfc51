"""Faults between rules: one target with two protocols, one header with two secrets."""

from collections.abc import Iterator

from paddock.policy.fields import Fields
from paddock.policy.model import METHODS, Rule, Secret
from paddock.policy.tree import Node


class Conflicts:
    """Remembers rules and secrets with their nodes, and writes down what contradicts."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._rules: dict[str, tuple[Rule, Node]] = {}
        self._secrets: list[tuple[Secret, Node]] = []

    def add_rule(self, rule: Rule, node: Node) -> None:
        """Remember a rule without faults of its own."""
        self._rules.setdefault(rule.id, (rule, node))

    def add_secret(self, secret: Secret, node: Node) -> None:
        """Remember a secret without faults of its own."""
        self._secrets.append((secret, node))

    def of_protocols(self) -> None:
        """A target has one protocol: a splicing rule would let pass unseen what an inspecting rule denies."""
        seen: dict[tuple[str, int], Rule] = {}
        for rule, node in self._rules.values():
            first = seen.setdefault((rule.host, rule.port), rule)
            if first.protocol is not rule.protocol:
                self._contradicts(node, rule, first)
        for rule, node in self._rules.values():
            for wild in wildcards_over(rule.host):
                other = seen.get((wild, rule.port))
                if other is not None and other.protocol is not rule.protocol:
                    self._contradicts(node, rule, other)

    def _contradicts(self, node: Node, rule: Rule, other: Rule) -> None:
        self._fields.fault(
            node,
            f"rule '{rule.id}' says {rule.protocol} where rule '{other.id}' (line {other.line}) says {other.protocol}: "
            f"{rule.host} port {rule.port} has one protocol",
        )

    def of_secrets(self) -> None:
        """Two secrets for one header of one request are refused where the document alone shows it."""
        seen: dict[tuple[str, int, str, str, str], Secret] = {}
        for secret, node in self._secrets:
            if secret.rule not in self._rules:
                continue
            rule = self._rules[secret.rule][0]
            clash: dict[str, Secret] = {}
            for place in _places(rule, secret.header):
                first = seen.setdefault(place, secret)
                same = (first.ref, first.scheme) == (secret.ref, secret.scheme) and first.rule != secret.rule
                if first is not secret and not same:
                    clash.setdefault(first.ref, first)
            for first in clash.values():
                self._fields.fault(
                    node,
                    f"secrets '{first.ref}' (line {first.line}) and '{secret.ref}' would both be header "
                    f"'{secret.header}' of the same request to {rule.host}; keep one",
                )


def _places(rule: Rule, header: str) -> Iterator[tuple[str, int, str, str, str]]:
    # A rule's own id too, so that two secrets of one rule clash although nothing is allowed yet.
    yield rule.id, 0, "", "", header
    for match in rule.allow:
        for method in match.methods or METHODS:
            yield rule.host, rule.port, method, match.path, header


def wildcards_over(host: str) -> Iterator[str]:
    """Every wildcard that covers a canonical host or wildcard, nearest first, the host itself excluded."""
    bare = host.removeprefix("*.")
    if host.startswith("*."):
        bare = bare.partition(".")[2]
        if bare:
            yield f"*.{bare}"
    while "." in bare:
        bare = bare.partition(".")[2]
        yield f"*.{bare}"
