"""Explanations: the rule, the file and the line behind every decision."""

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy.compile import compile_policy, deny_all
from paddock.policy.decide import Question, decide
from paddock.policy.document import parse
from paddock.policy.explain import explain, question_of
from tests.policy.documents import WHOLE

COMPILED = compile_policy(parse(WHOLE, "my.yaml"))


@pytest.mark.parametrize(
    ("url", "rule", "line", "words"),
    [
        ("https://api.example.com/repos/acme/x", "api-read", 8, "allows it, with secret vcs-token in authorization"),
        ("https://api.example.com/repos/acme/settings/x", "api-read", 9, "denies it"),
        ("https://api.example.com/other", "", 0, "none allows this method and path: 'api-read' (line 6)"),
        ("http://api.example.com/repos/acme/x", "", 0, "only of port and protocol 443 http: 'api-read' (line 6)"),
        ("tls://api.example.com:443", "", 0, "only of port and protocol 443 http"),
        ("https://other.example.com/", "", 0, "no rule speaks of other.example.com"),
        ("https://10.0.0.1/", "", 0, "not a host name"),
        ("https://api.example.com/repos/acme/../x", "", 0, "servers read this path differently"),
        ("https://api.example.com/repos/acme/x#y", "", 0, "servers read this path differently"),
    ],
)
def test_an_explanation_names_rule_file_and_line(url: str, rule: str, line: int, words: str) -> None:
    question = question_of("GET", url)
    found = explain(COMPILED, question)
    assert found.decision == decide(COMPILED, question)
    assert (found.decision.rule, found.line, found.file) == (rule, line, "my.yaml")
    assert words in found.words


def test_the_built_in_policy_explains_itself() -> None:
    assert "no rule speaks of" in explain(deny_all(), question_of("GET", "https://api.example.com")).words


def test_a_url_becomes_the_question_that_the_fence_would_ask() -> None:
    assert question_of("PUT", "https://a.example.com:8443/x?y") == Question(
        "a.example.com", 8443, "http", "PUT", "/x?y"
    )
    assert question_of("GET", "tcp://db.example.com:5432") == Question("db.example.com", 5432, "tcp")


@pytest.mark.parametrize(
    "url", ["", "api.example.com", "ftp://a.example.com/", "tcp://db.example.com", "https://", "https://a:b/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(PaddockError) as caught:
        question_of("GET", url)
    assert caught.value.kind is ErrorKind.BAD_SPEC
