"""What a part of `paddock up` inherits."""

import pytest

from paddock.embedded.parts import plain_environment


def test_keys_of_whoever_starts_us_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    given = plain_environment()
    assert "secret" not in given.values()
    assert given["LC_ALL"] == "C.UTF-8"
    assert "PATH" in given
