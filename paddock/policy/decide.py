"""The one evaluator: whether a request may pass. Deny beats allow; the order of rules never matters."""

from paddock.policy import hosts, paths
from paddock.policy.compile import Compiled
from paddock.policy.decision import Decision, Question, Reason, SecretUse
from paddock.policy.index import HTTP, Bucket, MethodRules, Target
from paddock.policy.model import METHODS

__all__ = ["Decision", "Question", "Reason", "SecretUse", "decide", "name_allowed", "protocols"]

_METHODS = frozenset(METHODS)
_UNKNOWN_HOST = Decision(False, "", Reason.UNKNOWN_HOST)
_UNKNOWN_PORT = Decision(False, "", Reason.UNKNOWN_PORT)
_NOT_ALLOWED = Decision(False, "", Reason.NOT_ALLOWED)
_BAD_HOST = Decision(False, "", Reason.BAD_HOST)
_BAD_METHOD = Decision(False, "", Reason.BAD_METHOD)
_BAD_PATH = Decision(False, "", Reason.BAD_PATH)


def decide(compiled: Compiled, question: Question) -> Decision:
    """Whether this request may pass, by which rule, with which secrets. Never raises: the not understood is denied."""
    host, port, protocol, method, path = question
    bucket = compiled.index.alone.get((host, port, protocol))
    if bucket is None:
        found = _buckets(compiled, question)
        if isinstance(found, Decision):
            return found
        bucket, others = found[0], found[1:]
    else:
        others = ()
    if protocol != HTTP:
        return bucket.first
    plain = paths.canonical(path)
    if plain is None:
        return _BAD_PATH
    rules = bucket.methods.get(method)
    if rules is None or others:
        return _united_over((bucket, *others), method, plain) if method in _METHODS else _BAD_METHOD
    return _of_rules(rules, plain)


def _of_rules(rules: MethodRules, path: str) -> Decision:
    denials, allowances = (rules.deny, rules.allow) if rules.few else rules.candidates(path)
    for match, decision in denials:
        if match(path):
            return decision
    first = None
    more: list[Decision] | None = None
    for match, decision in allowances:
        if match(path):
            if first is None:
                first = decision
            elif more is None:
                more = [decision]
            else:
                more.append(decision)
    if first is None:
        return _NOT_ALLOWED
    return first if more is None else _united(first, more)


def _united_over(buckets: tuple[Bucket, ...], method: str, path: str) -> Decision:
    """Rules of an exact name and of the wildcards over it add up like rules of one host."""
    found = [_of_rules(rules, path) for bucket in buckets if (rules := bucket.methods.get(method)) is not None]
    for reason in (Reason.DENIED_BY_RULE, Reason.SECRET_CONFLICT):
        for decision in found:
            if decision.reason is reason:
                return decision
    passing = [decision for decision in found if decision.allowed]
    if not passing:
        return _NOT_ALLOWED
    return _united(passing[0], passing[1:]) if len(passing) > 1 else passing[0]


def _buckets(compiled: Compiled, question: Question) -> tuple[Bucket, ...] | Decision:
    """Everything that speaks of the target, nearest first, or the denial when nothing does."""
    targets = _targets(compiled, question.host)
    if not targets:
        return _BAD_HOST if hosts.canonical(question.host) is None else _UNKNOWN_HOST
    key = (question.port, question.protocol)
    return tuple(found for target in targets if (found := target.get(key)) is not None) or _UNKNOWN_PORT


def _united(first: Decision, more: list[Decision]) -> Decision:
    """Rules that allow the same request add up: the secrets of all, unless two claim one header."""
    secrets: dict[str, SecretUse] = {}
    for decision in (first, *more):
        for use in decision.secrets:
            if secrets.setdefault(use.header, use) != use:
                return Decision(False, decision.rule, Reason.SECRET_CONFLICT)
    return Decision(True, first.rule, Reason.ALLOWED, tuple(secrets[header] for header in sorted(secrets)))


def _targets(compiled: Compiled, host: str) -> list[dict[Target, Bucket]]:
    name = hosts.canonical(host)
    return [] if name is None or hosts.forbidden(name) else compiled.index.targets(name)


def name_allowed(compiled: Compiled, host: str) -> bool:
    """Whether some rule speaks of this name: what DNS may answer."""
    return bool(_targets(compiled, host))


def protocols(compiled: Compiled, host: str, port: int) -> frozenset[str]:
    """The protocols that rules allow for this name and port; compiled policies have at most one."""
    return frozenset(p for target in _targets(compiled, host) for number, p in target if number == port)
