"""Why a request passes or not: the decision, with the rule that made it and where that rule stands."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy import hosts, paths
from paddock.policy.compile import Compiled, FlatRule
from paddock.policy.decide import Decision, Question, Reason, decide

_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision in words; `file` and `line` (0: none) lead to the rule, or to its entry that matched."""

    question: Question
    decision: Decision
    words: str
    file: str
    line: int


def explain(compiled: Compiled, question: Question) -> Explanation:
    """The decision on `question` with its reason; decides exactly as the fence does."""
    decision = decide(compiled, question)
    rule = next((r for r in compiled.flat.rules if r.id == decision.rule), None)
    near = [r for r in compiled.flat.rules if _covers(r, question.host)]
    line = _line(rule, question, denied=not decision.allowed) if rule is not None else 0
    return Explanation(question, decision, _words(decision, question, near), compiled.flat.file, line)


def question_of(method: str, url: str) -> Question:
    """The question that a request is: `https://`, `http://` (inspected), `tls://host:port` or `tcp://host:port`.

    Raises PaddockError BAD_SPEC for anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        raise _bad(url) from None
    if parts.scheme not in ("https", "http", "tls", "tcp") or not parts.hostname or port is None or "@" in parts.netloc:
        raise _bad(url)
    if parts.scheme in ("tls", "tcp"):
        return Question(parts.hostname, port, parts.scheme)
    rest = url.split("://", 1)[1]
    # The path as written: `urlsplit` would drop a fragment that the fence must see and refuse.
    path = rest[len(parts.netloc) :] or "/"
    return Question(parts.hostname, port, "http", method, path)


def _bad(url: str) -> PaddockError:
    return PaddockError(
        ErrorKind.BAD_SPEC,
        f"'{url[:200]}' is no address that a policy speaks of",
        field="url",
        remedy="Use https://host/path, http://host/path, tls://host:port or tcp://host:port.",
    )


def _covers(rule: FlatRule, host: str) -> bool:
    name = hosts.canonical(host) or ""
    return rule.host == name or (rule.host.startswith("*.") and name.endswith(rule.host[1:]))


def _line(rule: FlatRule, question: Question, *, denied: bool) -> int:
    path = paths.canonical(question.path)
    if path is not None:
        for match in rule.deny if denied else rule.allow:
            if (not match.methods or question.method in match.methods) and paths.matches(
                match.path, path, slash_too=denied
            ):
                return match.line
    return rule.line


def _words(decision: Decision, question: Question, near: list[FlatRule]) -> str:
    ids = ", ".join(f"'{rule.id}' (line {rule.line})" for rule in near[:5])
    host = question.host[:253]
    match decision.reason:
        case Reason.ALLOWED:
            with_ = ", ".join(f"{use.ref} in {use.header}" for use in decision.secrets)
            return f"rule '{decision.rule}' allows it" + (f", with secret {with_}" if with_ else "")
        case Reason.DENIED_BY_RULE:
            return f"rule '{decision.rule}' denies it, and a denial beats every allowance"
        case Reason.UNKNOWN_HOST:
            return f"no rule speaks of {host}, and what no rule allows is denied"
        case Reason.UNKNOWN_PORT:
            targets = ", ".join(sorted({f"{rule.port} {rule.protocol}" for rule in near}))
            return f"rules speak of {host}, but only of port and protocol {targets}: {ids}"
        case Reason.NOT_ALLOWED:
            return f"rules speak of {host}, but none allows this method and path: {ids}"
        case Reason.BAD_HOST:
            return "not a host name that anything may be asked of (an address, a single label, or not ASCII)"
        case Reason.BAD_METHOD:
            return "this method never passes"
        case Reason.BAD_PATH:
            return "servers read this path differently ('..', '//', ';', encoded slash or dot, …); it never passes"
        case Reason.SECRET_CONFLICT:
            return f"two rules bring different secrets for one header of this request; the second is '{decision.rule}'"
