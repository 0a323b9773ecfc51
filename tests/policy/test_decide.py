"""Decisions: equal to a slow, obvious reference; deny beats allow; order never matters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.policy import hosts, paths
from paddock.policy.compile import Compiled, compile_policy, deny_all
from paddock.policy.decide import Decision, Question, Reason, SecretUse, decide, name_allowed, protocols
from paddock.policy.document import Document, parse
from paddock.policy.model import METHODS, Match, Protocol, Rule, Secret
from tests.policy.documents import HEAD, RULE, SECRET, WHOLE, http, policy, rule

COMPILED = compile_policy(parse(WHOLE, "x"))


def ask(compiled: Compiled, host: str, path: str = "/", method: str = "GET", port: int = 443) -> Decision:
    return decide(compiled, Question(host, port, "http", method, path))


def test_an_allowed_request_gets_its_rule_and_its_secret() -> None:
    decision = ask(COMPILED, "api.example.com", "/repos/acme/x?y=1")
    bearer = SecretUse("vcs-token", "header", "authorization", "bearer")
    assert decision == Decision(True, "api-read", Reason.ALLOWED, (bearer,))


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question("api.example.com", 443, "http", "GET", "/repos/other/x"), Reason.NOT_ALLOWED),
        (Question("api.example.com", 443, "http", "POST", "/repos/acme/x"), Reason.NOT_ALLOWED),
        (Question("api.example.com", 443, "http", "GET", "/repos/acme/settings/x"), Reason.DENIED_BY_RULE),
        (Question("api.example.com", 443, "http", "GET", "/repos/acme/settings"), Reason.DENIED_BY_RULE),
        (Question("api.example.com", 443, "http", "GET", "/repos/acme/%73ettings"), Reason.DENIED_BY_RULE),
        (Question("api.example.com", 443, "http", "GET", "/repos/acme/../x"), Reason.BAD_PATH),
        (Question("api.example.com", 443, "http", "GET", "/repos/acme%2fx"), Reason.BAD_PATH),
        (Question("api.example.com", 443, "http", "GET", ""), Reason.BAD_PATH),
        (Question("api.example.com", 443, "http", "TRACE", "/repos/acme/x"), Reason.BAD_METHOD),
        (Question("api.example.com", 443, "http", "get", "/repos/acme/x"), Reason.BAD_METHOD),
        (Question("api.example.com", 80, "http", "GET", "/repos/acme/x"), Reason.UNKNOWN_PORT),
        (Question("api.example.com", 443, "tls"), Reason.UNKNOWN_PORT),
        (Question("api.example.com", 443, "tcp"), Reason.UNKNOWN_PORT),
        (Question("evil.example.com", 443, "http", "GET", "/repos/acme/x"), Reason.UNKNOWN_HOST),
        (Question("api.example.com.evil.com", 443, "http", "GET", "/"), Reason.UNKNOWN_HOST),
        (Question("127.0.0.1", 443, "http", "GET", "/"), Reason.BAD_HOST),
        (Question("ⓐpi.example.com", 443, "http", "GET", "/"), Reason.BAD_HOST),
    ],
)
def test_everything_else_is_denied_with_its_reason(question: Question, reason: Reason) -> None:
    decision = decide(COMPILED, question)
    assert (decision.allowed, decision.reason, decision.secrets) == (False, reason, ())


def test_a_name_is_canonicalised_before_it_is_looked_up() -> None:
    assert ask(COMPILED, "API.Example.com.", "/repos/acme/x").allowed


def test_a_denial_of_one_rule_beats_the_allowance_of_another_also_across_wildcards() -> None:
    compiled = compile_policy(
        parse(policy(http("wide", "*.example.com", deny="/admin/**"), http("one", "api.example.com")), "x")
    )
    assert ask(compiled, "api.example.com", "/x") == Decision(True, "one", Reason.ALLOWED)
    assert ask(compiled, "api.example.com", "/admin") == Decision(False, "wide", Reason.DENIED_BY_RULE)
    assert ask(compiled, "api.example.com", "/admin/x").reason is Reason.DENIED_BY_RULE


def test_a_denial_covers_the_path_with_a_slash_behind_it() -> None:
    compiled = compile_policy(parse(policy(http("a", "a.example.com", deny="/x/keys")), "x"))
    assert ask(compiled, "a.example.com", "/x/keys/").reason is Reason.DENIED_BY_RULE


def test_a_wildcard_covers_names_below_at_any_depth_and_neither_apex_nor_lookalike() -> None:
    compiled = compile_policy(parse(policy(http("w", "*.example.com")), "x"))
    assert name_allowed(compiled, "a.example.com")
    assert name_allowed(compiled, "a.b.example.com")
    assert not name_allowed(compiled, "example.com")
    assert not name_allowed(compiled, "evilexample.com")
    assert not name_allowed(compiled, "a.example.com.evil.org")


def test_no_wildcard_reaches_a_metadata_service_or_this_machine() -> None:
    flat = compile_policy(parse(policy(http("w", "*.corp.internal")), "x")).flat
    rules = tuple(r.model_copy(update={"host": "*.google.internal"}) for r in flat.rules)
    compiled = Compiled(flat.model_copy(update={"rules": rules}))
    assert name_allowed(compiled, "x.google.internal")
    assert not name_allowed(compiled, "metadata.google.internal")


def test_the_protocol_of_a_target_is_known_from_its_name_and_port() -> None:
    compiled = compile_policy(parse(policy(rule("t", "a.example.com", 5432, "tcp"), http("h", "a.example.com")), "x"))
    assert protocols(compiled, "a.example.com", 443) == {"http"}
    assert protocols(compiled, "a.example.com", 5432) == {"tcp"}
    assert protocols(compiled, "a.example.com", 1) == frozenset()
    assert decide(compiled, Question("a.example.com", 5432, "tcp")) == Decision(True, "t", Reason.ALLOWED)


def test_rules_that_allow_the_same_request_bring_the_secrets_of_all() -> None:
    twin = http("twin", "*.example.com", allow="/repos/**")
    text = HEAD + RULE + twin + SECRET + "    - {ref: other, rule: twin, in: header, as: header, name: X-Key}\n"
    decision = ask(compile_policy(parse(text, "x")), "api.example.com", "/repos/acme/x")
    assert [(use.ref, use.header) for use in decision.secrets] == [("vcs-token", "authorization"), ("other", "x-key")]


def test_two_secrets_for_one_header_that_only_the_request_shows_are_a_denial() -> None:
    twin = http("twin", "*.example.com", allow="/repos/**")
    text = HEAD + RULE + twin + SECRET + "    - {ref: other, rule: twin, in: header, as: bearer}\n"
    compiled = compile_policy(parse(text, "x"))
    assert ask(compiled, "api.example.com", "/repos/acme/x").reason is Reason.SECRET_CONFLICT
    assert ask(compiled, "b.example.com", "/repos/acme/x").allowed


def test_deny_all_lets_no_name_pass() -> None:
    assert not name_allowed(deny_all(), "api.example.com")
    assert ask(deny_all(), "api.example.com").reason is Reason.UNKNOWN_HOST


# The reference: every rule is looked at, nothing is indexed, globs are the tests of test_paths.

HOSTS = ["a.example.com", "b.example.com", "x.a.example.com", "y.x.a.example.com", "example.org"]
GLOBS = ["/**", "/a/**", "/a/*", "/a/b", "/*/b", "/**/c", "/", "/a/b/c/**", "/a/b/*/d", "/a*/b"]
PATHS = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/c",
    "/ab/b",
    "/a/b/c",
    "/a/b/c/d",
    "/x/c",
    "/a/b/c/d/e",
    "/a/../b",
    "/a%62",
]


def reference(document: Document, question: Question) -> tuple[bool, Reason]:
    """The obvious evaluator."""
    name = hosts.canonical(question.host)
    if name is None:
        return False, Reason.BAD_HOST

    def covered(r: Rule) -> bool:
        return r.host == name or (r.host[:2] == "*." and name.endswith(r.host[1:]))

    named = [r for r in document.rules if covered(r)]
    if not named:
        return False, Reason.UNKNOWN_HOST
    meant = [r for r in named if (r.port, r.protocol) == (question.port, question.protocol)]
    if not meant:
        return False, Reason.UNKNOWN_PORT
    path = paths.canonical(question.path)
    if path is None:
        return False, Reason.BAD_PATH
    if question.method not in METHODS:
        return False, Reason.BAD_METHOD

    def hit(matches: tuple[Match, ...], *, denied: bool) -> bool:
        return any(
            (not m.methods or question.method in m.methods) and paths.matches(m.path, path, slash_too=denied)
            for m in matches
        )

    if any(hit(r.deny, denied=True) for r in meant):
        return False, Reason.DENIED_BY_RULE
    passing = [r.id for r in meant if hit(r.allow, denied=False)]
    if not passing:
        return False, Reason.NOT_ALLOWED
    by_header: dict[str, set[tuple[str, str]]] = {}
    for secret in document.secrets:
        if secret.rule in passing:
            by_header.setdefault(secret.header, set()).add((secret.ref, secret.scheme))
    conflict = any(len(found) > 1 for found in by_header.values())
    return (False, Reason.SECRET_CONFLICT) if conflict else (True, Reason.ALLOWED)


_methods = st.sampled_from([("GET",), ("GET", "POST"), (), ("PUT",)])
_match = st.builds(Match, _methods, st.sampled_from(GLOBS), st.just(1))
_matches = st.lists(_match, max_size=3).map(tuple)
_host = st.sampled_from([*HOSTS, "*.example.com", "*.a.example.com", "*.x.a.example.com"])
_rule = st.builds(
    Rule, st.just(""), _host, st.sampled_from([443, 444]), st.just(Protocol.HTTP), _matches, _matches, st.just(1)
)

# Many rules of one target: here the index looks only at those whose path begins as the request's does.
_crowded = st.builds(
    Rule, st.just(""), st.just(HOSTS[0]), st.just(443), st.just(Protocol.HTTP), _matches, _matches, st.just(1)
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    drawn = draw(st.lists(_rule, max_size=12) | st.lists(_crowded, min_size=6, max_size=20))
    rules = tuple(
        Rule(f"r{i:02}", r.host, r.port, r.protocol, r.allow, r.deny if draw(st.booleans()) else (), 1)
        for i, r in enumerate(drawn)
    )
    bound = draw(st.lists(st.tuples(st.sampled_from(["s", "t"]), st.sampled_from(["x", "y"])), max_size=len(rules)))
    secrets = tuple(Secret(ref, f"r{i:02}", header, "header", 1) for i, (ref, header) in enumerate(bound))
    return Document("d", "f", rules, secrets)


_question = st.builds(
    Question,
    st.sampled_from([*HOSTS, "z.example.com", "A.Example.com.", "10.0.0.1", "b.org"]),
    st.sampled_from([443, 444, 80]),
    st.sampled_from(["http", "http", "http", "tls"]),
    st.sampled_from(["GET", "POST", "DELETE", "TRACE"]),
    st.sampled_from(PATHS),
)


@settings(max_examples=400, deadline=None)
@given(documents(), st.lists(_question, min_size=1, max_size=8))
def test_every_decision_equals_the_reference(document: Document, questions: list[Question]) -> None:
    compiled = compile_policy(document)
    for question in questions:
        decision = decide(compiled, question)
        assert (decision.allowed, decision.reason) == reference(document, question), question
        assert name_allowed(compiled, question.host) is (
            reference(document, question)[1] not in (Reason.BAD_HOST, Reason.UNKNOWN_HOST)
        )


@settings(max_examples=300, deadline=None)
@given(documents(), _question, st.randoms())
def test_the_order_of_rules_never_matters(document: Document, question: Question, random: object) -> None:
    shuffled = list(document.rules)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = Document(document.name, document.file, tuple(shuffled), tuple(reversed(document.secrets)))
    assert compile_policy(document).digest == compile_policy(other).digest
    assert decide(compile_policy(document), question) == decide(compile_policy(other), question)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.integers(), st.text(max_size=8), st.text(max_size=8), st.text(max_size=40))
def test_no_question_raises(host: str, port: int, protocol: str, method: str, path: str) -> None:
    assert not decide(COMPILED, Question(host, port, protocol, method, path)).allowed
    assert not decide(COMPILED, Question("api.example.com", 443, "http", method, path)).allowed or path.startswith(
        "/repos"
    )
