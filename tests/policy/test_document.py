"""The document: what it accepts, and that every fault is named with its line and column."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.policy.document import PolicyError, Problem, parse
from paddock.policy.model import Protocol
from tests.policy.documents import HEAD, RULE, SECRET, WHOLE, http, policy, rule


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(PolicyError) as caught:
        parse(text, "policy.yaml")
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def test_a_document_becomes_typed_rules_with_their_lines() -> None:
    document = parse(WHOLE, "policy.yaml")
    (found,) = document.rules
    assert (document.name, document.file) == ("fixer", "policy.yaml")
    assert (found.id, found.host, found.port, found.protocol, found.line) == (
        "api-read",
        "api.example.com",
        443,
        "http",
        6,
    )
    assert (found.allow[0].methods, found.allow[0].path, found.allow[0].line) == (("GET",), "/repos/acme/**", 8)
    assert found.deny[0].methods == ()
    (secret,) = document.secrets
    assert (secret.ref, secret.rule, secret.header, secret.scheme) == (
        "vcs-token",
        "api-read",
        "authorization",
        "bearer",
    )


def test_a_spec_without_rules_denies_everything_and_is_fine() -> None:
    assert parse(HEAD.replace("spec:\n", "spec: {}\n"), "x").rules == ()


def test_tls_and_tcp_rules_need_no_paths() -> None:
    document = parse(policy(rule("a", "db.example.com", 5432, "tcp"), rule("b", "up.example.com", 443, "tls")), "x")
    assert [r.protocol for r in document.rules] == [Protocol.TCP, Protocol.TLS]


def test_a_host_is_kept_in_its_canonical_form() -> None:
    assert parse(policy(http("a", "API.Example.COM.")), "x").rules[0].host == "api.example.com"


def test_all_problems_are_reported_in_the_order_of_the_document() -> None:
    text = WHOLE.replace("v1", "v2").replace("443", "'443'").replace("[GET]", "[get]").replace("vcs-token", "'bad ref'")
    found = problems(text)
    assert [p.line for p in found] == [1, 7, 8, 11]
    assert found == tuple(sorted(found))


def test_an_error_reads_as_file_line_column_and_words() -> None:
    with pytest.raises(PolicyError) as caught:
        parse(WHOLE.replace("api.example.com", "10.0.0.1"), "my.yaml")
    assert str(caught.value).startswith("my.yaml:7:18: host '10.0.0.1': an address is not a host")


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        (WHOLE.replace("port: 443", "prot: 443, port: 443"), 7, 35, "did you mean 'port'"),
        (WHOLE.replace("    - id: api-read\n", "    - id: api-read\n      id: again\n"), 7, 7, "given twice"),
        (WHOLE.replace("api.example.com", "&a api.example.com"), 7, 18, "anchors"),
        (WHOLE.replace("api.example.com", "!!str api.example.com"), 7, 18, "tags"),
        (WHOLE.replace("{name: fixer}", "{name: !x fixer}"), 3, 18, "tags"),
        (WHOLE + "---\na: 1\n", 12, 1, "second document"),
        (WHOLE.replace("port: 443", "port: 0"), 7, 41, "from 1 to 65535"),
        (WHOLE.replace("port: 443", "port: 65536"), 7, 41, "from 1 to 65535"),
        (WHOLE.replace("port: 443", "port: 0x1bb"), 7, 41, "from 1 to 65535"),
        (WHOLE.replace("protocol: http", "protocol: smtp"), 7, 56, "'http', 'tls' or 'tcp'"),
        (WHOLE.replace("/repos/acme/**", "/repos/../x"), 8, 38, "not a path that could ever pass"),
        (WHOLE.replace("/repos/acme/**", "repos"), 8, 38, "begins with '/'"),
        (WHOLE.replace("/repos/acme/**", "/a**"), 8, 38, "stands alone"),
        (WHOLE.replace("/repos/acme/**", "'/a?b=c'"), 8, 38, "query is never matched"),
        (WHOLE.replace("[GET]", "[CONNECT]"), 8, 26, "allowed are DELETE"),
        (WHOLE.replace("[GET]", "[TRACE]"), 8, 26, "allowed are DELETE"),
        (WHOLE.replace("[GET]", "[GET, GET]"), 8, 31, "given twice"),
        (WHOLE.replace("[GET]", "[]"), 8, 25, "1 to 7 entries"),
        (WHOLE.replace("[GET]", "[GET, '*']"), 8, 31, "stands alone"),
        (WHOLE.replace("rule: api-read", "rule: other"), 11, 30, "not in this policy"),
        (WHOLE.replace("name: fixer", "name: deny-all"), 3, 18, "built in"),
        (WHOLE.replace("name: fixer", "name: Fixer"), 3, 18, "must be 1 to 63"),
        (WHOLE.replace("id: api-read", "id: ~"), 6, 11, "is empty"),
        (WHOLE.replace("kind: Policy\n", ""), 1, 1, "lacks 'kind'"),
        (HEAD + "  network: {}\n", 5, 12, "must be a list"),
        ("- a\n", 1, 1, "must be a mapping"),
        ("", 1, 1, "empty"),
        ("a: [", 2, 1, "not YAML"),
        ("a: \0", 1, 4, "not YAML"),
        ("a: \ud800", 1, 1, "not valid Unicode"),
        ("? [a]\n: b\n", 1, 3, "a key must be a plain name"),
    ],
)
def test_a_fault_is_named_where_it_stands(text: str, line: int, column: int, words: str) -> None:
    found = next((p for p in problems(text) if words in p.message), None)
    assert found is not None, problems(text)
    assert (found.line, found.column) == (line, column)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("kind: Policy", "kind: Fragment", "Fragment"),
        ("{name: fixer}", "{name: fixer, scope: project}", "project"),
        ("spec:\n", "spec:\n  mode: audit\n", "audit"),
        ("spec:\n", "spec:\n  default: ask\n", "ask"),
        ("spec:\n", "spec:\n  packages: []\n", "packages"),
        ("spec:\n", "spec:\n  tools: []\n", "tools"),
        ("spec:\n", "spec:\n  model: {}\n", "model"),
        ("spec:\n", "spec:\n  limits: {requests: 5}\n", "limits"),
        ("spec:\n", "spec:\n  approvals: {}\n", "approvals"),
        ("spec:\n", "spec:\n  audit: {bodies: none}\n", "audit"),
        ("protocol: http", "protocol: h2", "h2"),
        ("protocol: http", "protocol: git", "git"),
        ("protocol: http", "protocol: mcp", "mcp"),
        ("      allow:", "      approval: required\n      allow:", "approval"),
        ("      allow:", "      expires: 2h\n      allow:", "expires"),
        ("      allow:", "      encodedSlash: allow\n      allow:", "encodedSlash"),
        ("in: header", "in: query", "query"),
        ("as: bearer", "as: basic", "basic"),
    ],
)
def test_what_is_not_enforced_yet_is_refused_and_never_ignored(old: str, new: str, name: str) -> None:
    assert old in WHOLE
    found = only(WHOLE.replace(old, new, 1))
    assert "not in this version" in found.message
    assert f"'{name}'" in found.message


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("{ref: t, rule: api-read, in: header, as: header}", "needs 'name'"),
        ("{ref: t, rule: api-read, in: header, as: bearer, name: x-key}", "belongs to"),
        ("{ref: t, rule: api-read, in: header, as: header, name: Host}", "may hold no secret"),
        ("{ref: t, rule: api-read, in: header, as: header, name: Cookie}", "may hold no secret"),
        ("{ref: t, rule: api-read, in: header, as: header, name: X-Forwarded-For}", "may hold no secret"),
        ("{ref: t, rule: api-read, in: header, as: header, name: 'a b'}", "the name of a header"),
        ("{ref: t, rule: raw, in: header, as: bearer}", "only http rules hold secrets"),
    ],
)
def test_a_secret_in_a_wrong_place_is_refused(secret: str, words: str) -> None:
    text = HEAD + RULE + rule("raw", "db.example.com", 1, "tcp") + f"  secrets:\n    - {secret}\n"
    assert words in only(text).message


def test_two_secrets_for_one_header_of_one_rule_are_refused() -> None:
    text = WHOLE + "    - {ref: other, rule: api-read, in: header, as: header, name: Authorization}\n"
    found = only(text)
    assert "keep one" in found.message
    assert found.line == 12


def test_two_rules_that_allow_the_same_request_may_not_bring_two_secrets() -> None:
    twin = http("twin", "api.example.com", allow="/repos/acme/**")
    text = HEAD + RULE + twin + SECRET + "    - {ref: other, rule: twin, in: header, as: bearer}\n"
    assert "'vcs-token' (line 12) and 'other'" in only(text).message


def test_one_secret_may_serve_two_rules_and_two_headers() -> None:
    twin = http("twin", "api.example.com", allow="/repos/acme/**")
    more = "    - {ref: other, rule: twin, in: header, as: header, name: X-Key}\n"
    text = HEAD + RULE + twin + SECRET + "    - {ref: vcs-token, rule: twin, in: header, as: bearer}\n" + more
    assert len(parse(text, "x").secrets) == 3


def test_a_rule_id_is_used_once() -> None:
    assert "is taken" in only(policy(http("a", "a.example.com"), http("a", "b.example.com"))).message


@pytest.mark.parametrize("host", ["api.example.com", "*.example.com"])
def test_a_target_that_is_inspected_may_not_also_be_spliced(host: str) -> None:
    text = policy(http("seen", "api.example.com"), rule("unseen", host, 443, "tls"))
    assert "has one protocol" in only(text).message


def test_an_http_rule_that_allows_and_denies_nothing_is_a_mistake() -> None:
    assert "needs 'allow'" in only(policy(rule("a", "api.example.com"))).message


def test_an_alias_bomb_is_refused_at_its_first_alias() -> None:
    bomb = "a: &a [x]\n" + "\n".join(f"{c}: &{c} [*{p}, *{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    assert any("aliases" in p.message for p in problems(bomb))


def test_a_document_is_bounded_in_size_depth_and_problems() -> None:
    assert "longer than" in only("#" * (1 << 19) + "##").message
    assert any("nested deeper" in p.message for p in problems("a: " + "[" * 100 + "]" * 100))
    assert any("nesting depth" in p.message for p in problems("[" * 200_000))
    many = policy(*(rule(f"r{i}", "10.0.0.1") for i in range(200)))
    assert len(problems(many)) == 100


def test_a_thousand_rules_are_fine_and_one_more_is_not() -> None:
    rules = [http(f"r{i}", f"h{i}.example.com") for i in range(1001)]
    assert len(parse(policy(*rules[:1000]), "x").rules) == 1000
    assert "0 to 1000" in only(policy(*rules)).message


def test_control_characters_of_a_document_never_reach_a_terminal() -> None:
    found = problems(WHOLE.replace("{name: fixer}", '{name: "\\e[31mred\\n"}'))
    assert all(p.message.isprintable() for p in found)


_WORDS = st.sampled_from(
    [
        *"{}[]:,-&*!|>'\"%@`#?~\n\t ",
        "  ",
        "\n  - ",
        ": ",
        "spec",
        "network",
        "to",
        "id",
        "host",
        "allow",
        "<<",
        "---",
        "null",
    ]
)


def refusal(text: str) -> PolicyError | None:
    try:
        parse(text, "x")
    except PolicyError as error:
        return error
    return None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=60).map("".join)))
def test_no_text_raises_anything_but_a_policy_error(text: str) -> None:
    error = refusal(text)
    assert error is not None
    assert error.problems
    assert all(p.line >= 1 and p.column >= 1 for p in error.problems)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 20), st.lists(_WORDS, max_size=4).map("".join))
def test_no_edit_of_a_good_document_raises_anything_but_a_policy_error(at: int, cut: int, put: str) -> None:
    error = refusal(WHOLE[:at] + put + WHOLE[at + cut :])
    assert error is None or error.problems
