"""Indexes over rules: names in a dict, wildcards in a trie of reversed labels, paths by their literal beginning."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from paddock.policy import paths
from paddock.policy.decision import Decision, Reason, SecretUse
from paddock.policy.model import METHODS, Match, Protocol, Rule, Secret

FullMatch = Callable[[str], object]
Target = tuple[int, str]
_LITERAL = re.compile(r"[A-Za-z0-9_~.-]+")


@dataclass(frozen=True, slots=True)
class _Source:
    match: FullMatch
    globs: tuple[str, ...]
    decision: Decision


Entry = tuple[FullMatch, Decision]
Entries = tuple[Entry, ...]


class MethodRules:
    """What the rules of one target say of one method: denials and allowances, each in order of the rules' ids."""

    __slots__ = ("_by_prefix", "_depth", "allow", "deny", "few")
    FEW = 4
    # Globs rarely share more literal segments than these, so a longer key would only cost.
    DEPTH = 3

    def __init__(self, deny: list[_Source], allow: list[_Source]) -> None:
        self.few = len(deny) + len(allow) <= self.FEW
        self.deny: Entries = tuple((source.match, source.decision) for source in deny)
        self.allow: Entries = tuple((source.match, source.decision) for source in allow)
        self._by_prefix: dict[str, tuple[list[Entry], list[Entry]]] = {}
        self._depth = 0
        if self.few:
            return
        for which, sources in enumerate((deny, allow)):
            for source in sources:
                for prefix in sorted({_prefix(glob, self.DEPTH) for glob in source.globs}):
                    self._by_prefix.setdefault(prefix, ([], []))[which].append((source.match, source.decision))
                    self._depth = max(self._depth, prefix.count("/"))

    def candidates(self, path: str) -> tuple[Entries | list[Entry], Entries | list[Entry]]:
        """(denials, allowances) that could match this path."""
        if self.few:
            return self.deny, self.allow
        found = self._by_prefix.get("")
        end = 0
        for _ in range(self._depth):
            end = path.find("/", end + 1)
            more = self._by_prefix.get(path if end < 0 else path[:end])
            if more is not None:
                found = more if found is None else (_merged(found[0], more[0]), _merged(found[1], more[1]))
            if end < 0:
                break
        return found if found is not None else ((), ())


def _merged(some: list[Entry], more: list[Entry]) -> list[Entry]:
    return sorted(some + more, key=lambda entry: entry[1].rule)


def _prefix(glob: str, depth: int) -> str:
    """The leading segments without a wildcard or an escape, at most `depth`: every path that matches has them."""
    kept = ""
    for segment in glob.split("/")[1:][:depth]:
        if not _LITERAL.fullmatch(segment):
            break
        kept += f"/{segment}"
    return kept


class Bucket:
    """All rules of one host (or wildcard), port and protocol."""

    __slots__ = ("first", "methods")

    def __init__(self, rules: list[Rule], secrets: dict[str, tuple[SecretUse, ...]]) -> None:
        rules = sorted(rules, key=lambda rule: rule.id)
        passing = {r.id: Decision(True, r.id, Reason.ALLOWED, secrets.get(r.id, ())) for r in rules}
        refusing = {r.id: Decision(False, r.id, Reason.DENIED_BY_RULE) for r in rules}
        self.first = passing[rules[0].id]
        self.methods: dict[str, MethodRules] = {}
        for method in METHODS:
            deny = [s for r in rules if (s := _source(r.deny, method, refusing[r.id], slash_too=True))]
            allow = [s for r in rules if (s := _source(r.allow, method, passing[r.id], slash_too=False))]
            if allow:
                self.methods[method] = MethodRules(deny, allow)
            elif deny:
                self.methods[method] = MethodRules(deny, [])


def _source(matches: tuple[Match, ...], method: str, decision: Decision, *, slash_too: bool) -> _Source | None:
    """What one rule says of one method; `slash_too`: a denial of `/x` covers `/x/`, which servers serve as the same."""
    globs = tuple(m.path for m in matches if not m.methods or method in m.methods)
    if not globs:
        return None
    expression = "|".join(f"(?:{paths.compile_glob(glob, slash_too=slash_too)})" for glob in globs)
    return _Source(_full_match(expression), globs, decision)


@lru_cache(maxsize=8192)
def _full_match(expression: str) -> FullMatch:
    # Methods repeat their rule's paths and rules each other's; compiling is dear, and `re` itself remembers only 512.
    return re.compile(expression).fullmatch


class Node:
    """A label of the trie: wildcards that end here, and the labels to the left."""

    __slots__ = ("below", "wild")

    def __init__(self) -> None:
        self.below: dict[str, Node] = {}
        self.wild: dict[Target, Bucket] | None = None


class Index:
    """Finds the buckets of a name."""

    def __init__(self, rules: Iterable[Rule], secrets: Iterable[Secret]) -> None:
        uses: dict[str, tuple[SecretUse, ...]] = {}
        for s in secrets:
            use = SecretUse(s.ref, "header", s.header, "bearer" if s.scheme == "bearer" else "header")
            uses[s.rule] = (*uses.get(s.rule, ()), use)
        grouped: dict[str, dict[Target, list[Rule]]] = {}
        for rule in rules:
            grouped.setdefault(rule.host, {}).setdefault((rule.port, rule.protocol.value), []).append(rule)
        self.exact: dict[str, dict[Target, Bucket]] = {}
        self.trie: Node | None = None
        for host, targets in grouped.items():
            buckets = {target: Bucket(found, uses) for target, found in targets.items()}
            if host.startswith("*."):
                self._node(host[2:]).wild = buckets
            else:
                self.exact[host] = buckets
        # Exact names that no wildcard covers, by one look-up: nearly every question.
        self.alone: dict[tuple[str, int, str], Bucket] = {
            (host, *target): bucket
            for host, buckets in self.exact.items()
            if len(self.targets(host)) == 1
            for target, bucket in buckets.items()
        }

    def _node(self, parent: str) -> Node:
        self.trie = node = self.trie or Node()
        for label in reversed(parent.split(".")):
            node = node.below.setdefault(label, Node())
        return node

    def targets(self, host: str) -> list[dict[Target, Bucket]]:
        """What the policy says of this canonical name: its own rules, then wildcards over it, nearest first."""
        exact = self.exact.get(host)
        found = [] if exact is None else [exact]
        node = self.trie
        if node is None:
            return found
        wild: list[dict[Target, Bucket]] = []
        labels = host.split(".")
        for label in reversed(labels[1:]):
            child = node.below.get(label)
            if child is None:
                break
            node = child
            if node.wild is not None:
                wild.append(node.wild)
        return found + wild[::-1]


HTTP = Protocol.HTTP.value
