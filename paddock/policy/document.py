"""The policy document: YAML text to typed rules, or every problem with its line and column."""

import re

from paddock.policy import hosts, paths
from paddock.policy.conflicts import Conflicts
from paddock.policy.fields import Fields, Table
from paddock.policy.model import DENY_ALL, METHODS, Document, Match, Protocol, Rule, Secret
from paddock.policy.problems import PolicyError, Problem
from paddock.policy.tree import Node, Scalar, read, shown

__all__ = ["METHODS", "Document", "Match", "PolicyError", "Problem", "Protocol", "Rule", "Secret", "parse"]

MAX_RULES = 1000
MAX_MATCHES = 64
MAX_SECRETS = 256

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
_REF = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/-]{0,127}")
_REF_RULE = "1 to 128 letters, digits, '.', '_', '/' and '-', beginning with a letter or digit"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Headers that frame or route a message, that the gateway writes itself, or that others log: never a place for a secret.
_NEVER = re.compile(
    r"host|connection|content-.*|transfer-encoding|te|trailer|upgrade|keep-alive|expect|date|via|forwarded|x-forwarded-.*"
    r"|x-real-ip|x-original-.*|x-rewrite-.*|x-http-method.*|x-method-override|proxy-.*|sec-.*|cookie|set-cookie|referer|origin"
    r"|user-agent|accept|accept-.*|range|if-.*"
)


def parse(text: str, file: str) -> Document:
    """The document in `text`; errors show the name `file`. Raises PolicyError with all problems, nothing else."""
    tree, problems = read(text)
    reader = _Reader()
    document = reader.document(tree, file) if tree is not None else None
    problems = problems + reader.fields.problems
    if problems or document is None:
        raise PolicyError(file, problems)
    return document


class _Reader:
    def __init__(self) -> None:
        self.fields = Fields()
        self.conflicts = Conflicts(self.fields)

    def document(self, node: Node, file: str) -> Document | None:
        f = self.fields
        top = f.table(node, "the document", required="apiVersion kind metadata spec")
        if top is None:
            return None
        f.one_of(top, "apiVersion", "apiVersion", "paddock/v1")
        f.one_of(top, "kind", "kind", "Policy", later="Fragment")
        name = self._metadata(top)
        rules, secrets = self._spec(top)
        if f.problems or name is None:
            return None
        return Document(name, file, tuple(sorted(rules, key=lambda r: r.id)), tuple(secrets))

    def _metadata(self, top: Table) -> str | None:
        f = self.fields
        if "metadata" not in top:
            return None
        table = f.table(top["metadata"][1], "metadata", required="name", optional="scope")
        if table is None:
            return None
        f.one_of(table, "scope", "metadata.scope", "sandbox", later="organisation project")
        name = f.name(table, "name", "metadata.name", _NAME, _NAME_RULE)
        if name is not None and name.value == DENY_ALL:
            f.fault(name, f"'{DENY_ALL}' is built in and cannot be redefined")
        return name.value if name is not None else None

    def _spec(self, top: Table) -> tuple[list[Rule], list[Secret]]:
        f = self.fields
        if "spec" not in top:
            return [], []
        later = "packages tools model limits approvals audit"
        table = f.table(top["spec"][1], "spec", required="", optional="mode default network secrets", later=later)
        if table is None:
            return [], []
        f.one_of(table, "mode", "spec.mode", "enforce", later="audit")
        f.one_of(table, "default", "spec.default", "deny", later="ask")
        rules: list[Rule] = []
        known: dict[str, Protocol | None] = {}
        for node in f.items(table, "network", "spec.network", MAX_RULES, least=0):
            rule = self._rule(node, known)
            if rule is not None:
                rules.append(rule)
        secrets: list[Secret] = []
        for node in f.items(table, "secrets", "spec.secrets", MAX_SECRETS, least=0):
            secret = self._secret(node, known)
            if secret is not None:
                secrets.append(secret)
        self.conflicts.of_protocols()
        self.conflicts.of_secrets()
        return rules, secrets

    def _rule(self, node: Node, known: dict[str, Protocol | None]) -> Rule | None:
        f = self.fields
        faults = len(f.problems)
        later = "approval expires encodedSlash"
        table = f.table(node, "a network rule", required="id to", optional="allow deny", later=later)
        if table is None:
            return None
        id_ = f.name(table, "id", "a rule's id", _NAME, _NAME_RULE)
        host, port, protocol = self._target(table)
        if id_ is not None:
            if id_.value in known:
                f.fault(id_, f"the rule id {shown(id_.value)} is taken by an earlier rule; every rule has its own")
            known.setdefault(id_.value, protocol)
        allow, deny = self._matches(table, "allow"), self._matches(table, "deny")
        if protocol is Protocol.HTTP and not {"allow", "deny"} & table.keys():
            f.fault(node, "a rule with protocol http needs 'allow' (methods and path); without it nothing passes")
        if protocol in (Protocol.TLS, Protocol.TCP):
            for field in {"allow", "deny"} & table.keys():
                f.fault(table[field][0], f"'{field}' needs protocol http: nothing looks inside a {protocol} stream")
        if len(f.problems) > faults or id_ is None or host is None or port is None or protocol is None:
            return None
        rule = Rule(id_.value, host, port, protocol, tuple(allow), tuple(deny), node.line)
        self.conflicts.add_rule(rule, node)
        return rule

    def _target(self, rule: Table) -> tuple[str | None, int | None, Protocol | None]:
        f = self.fields
        if "to" not in rule:
            return None, None, None
        table = f.table(rule["to"][1], "a rule's 'to'", required="host port protocol")
        if table is None:
            return None, None, None
        host = f.text(table, "host", "host")
        name = None
        if host is not None:
            problem = hosts.problem_of(host.value)
            if problem:
                f.fault(host, f"host {shown(host.value)}: {problem}")
            else:
                name = host.value.lower().removesuffix(".")
        port = f.number(table, "port", "port", 1, 65535)
        word = f.one_of(table, "protocol", "protocol", "http tls tcp", later="h2 ws mcp git")
        return name, port, Protocol(word) if word else None

    def _matches(self, rule: Table, field: str) -> list[Match]:
        f = self.fields
        found: list[Match] = []
        for node in f.items(rule, field, f"'{field}'", MAX_MATCHES):
            table = f.table(node, f"an entry of '{field}'", required="methods path")
            if table is None:
                continue
            methods = self._methods(table)
            path = f.text(table, "path", "path")
            problem = paths.problem_of_glob(path.value) if path is not None else None
            if path is not None and problem:
                f.fault(path, f"path {shown(path.value)}: {problem}")
            elif path is not None:
                found.append(Match(methods, path.value, node.line))
        return found

    def _methods(self, table: Table) -> tuple[str, ...]:
        f = self.fields
        found: list[Scalar] = []
        for node in f.items(table, "methods", "'methods'", len(METHODS)):
            method = f.scalar(node, "a method")
            if method is None:
                continue
            if method.value != "*" and method.value not in METHODS:
                allowed = ", ".join(METHODS)
                f.fault(method, f'method {shown(method.value)}: allowed are {allowed}, or "*" alone for all of them')
            elif method.value in (m.value for m in found):
                f.fault(method, f"method {shown(method.value)} is given twice")
            else:
                found.append(method)
        words = sorted(m.value for m in found)
        if "*" in words and len(words) > 1:
            f.fault(next(m for m in found if m.value == "*"), 'the method "*" stands alone: it is all of them')
        return () if "*" in words else tuple(words)

    def _secret(self, node: Node, known: dict[str, Protocol | None]) -> Secret | None:
        f = self.fields
        table = f.table(node, "a secret", required="ref rule in as", optional="name")
        if table is None:
            return None
        ref = f.name(table, "ref", "ref", _REF, _REF_RULE)
        rule = f.text(table, "rule", "rule")
        if rule is not None and rule.value not in known:
            f.fault(rule, f"rule {shown(rule.value)} is not in this policy; a secret names the one rule it is for")
        elif rule is not None and known[rule.value] in (Protocol.TLS, Protocol.TCP):
            f.fault(rule, f"rule {shown(rule.value)} has protocol {known[rule.value]}: only http rules hold secrets")
        f.one_of(table, "in", "in", "header", later="query body path cookie")
        scheme = f.one_of(table, "as", "as", "bearer header", later="basic sigv4 oauth2 git jwt placeholder")
        header = self._header(table, scheme, node)
        if ref is None or rule is None or scheme is None or header is None:
            return None
        secret = Secret(ref.value, rule.value, header, scheme, node.line)
        self.conflicts.add_secret(secret, node)
        return secret

    def _header(self, table: Table, scheme: str | None, node: Node) -> str | None:
        f = self.fields
        if scheme == "bearer":
            if "name" in table:
                f.fault(table["name"][0], "'name' belongs to `as: header`; bearer is always in Authorization")
            return "authorization"
        if scheme == "header" and "name" not in table:
            f.fault(node, "`as: header` needs 'name': which header holds the value")
        name = f.name(table, "name", "name", _HEADER, "the name of a header")
        if name is not None and _NEVER.fullmatch(name.value.lower()):
            f.fault(
                name, f"header {shown(name.value)} may hold no secret: it frames or routes the message, or is logged"
            )
            return None
        return name.value.lower() if name is not None else None
