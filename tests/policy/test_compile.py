"""The compiled form: canonical, digest-stamped, and the same after a round trip."""

import json

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ids import digest
from paddock.policy.compile import Compiled, compile_policy, deny_all
from paddock.policy.document import parse
from tests.policy.documents import WHOLE, http, policy


def test_the_json_is_canonical_and_the_digest_is_over_it() -> None:
    compiled = compile_policy(parse(WHOLE, "x"), revision=3)
    text = compiled.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert compiled.digest == digest(text.encode())
    assert (compiled.name, compiled.revision) == ("fixer", 3)


def test_a_policy_read_back_is_the_same_policy() -> None:
    compiled = compile_policy(parse(WHOLE, "x"))
    again = Compiled.from_json(compiled.to_json())
    assert again == compiled
    assert again.to_json() == compiled.to_json()
    assert again.secret_refs == {"vcs-token"}


def test_the_digest_changes_with_what_is_enforced() -> None:
    one = compile_policy(parse(WHOLE, "x"))
    other = compile_policy(parse(WHOLE.replace("acme", "acmf"), "x"))
    assert one.digest != other.digest
    assert one != other


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", deny_all().to_json()[:-1], deny_all().to_json().replace('"format"', '"x":1,"format"')],
)
def test_what_is_no_compiled_policy_is_refused(text: str) -> None:
    with pytest.raises(PaddockError) as caught:
        Compiled.from_json(text)
    assert caught.value.kind is ErrorKind.BAD_POLICY


def test_a_repr_names_the_policy_and_not_its_rules() -> None:
    text = repr(compile_policy(parse(policy(http("a", "hidden.example.com")), "x")))
    assert "fixer@0" in text
    assert "hidden" not in text
