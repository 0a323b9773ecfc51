"""`paddock policy`: words for people, JSON for programs, exit codes for scripts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paddock.cli.policy import app
from tests.policy.documents import WHOLE

RUN = CliRunner()
EXAMPLES = sorted((Path(__file__).parents[2] / "examples/policies").glob("*.yaml"))


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(WHOLE)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(WHOLE.replace("443", "'443'").replace("[GET]", "[get]"))
    return str(path)


def test_a_good_document_is_fine(good: str) -> None:
    result = RUN.invoke(app, ["check", good])
    assert result.exit_code == 0
    assert "fine. Policy 'fixer', 1 rules, secrets vcs-token" in result.stdout
    assert json.loads(RUN.invoke(app, ["check", good, "--json"]).stdout)["ok"] is True


def test_a_bad_document_shows_every_problem_and_exits_1(bad: str) -> None:
    result = RUN.invoke(app, ["check", bad])
    assert result.exit_code == 1
    assert f"{bad}:7:41: port must be" in result.stderr
    assert f"{bad}:8:26: method 'get'" in result.stderr
    found = json.loads(RUN.invoke(app, ["check", bad, "--json"]).stdout)
    assert [(p["line"], p["column"]) for p in found["problems"]] == [(7, 41), (8, 26)]


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_a_file_that_is_no_text_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe\n")
    result = RUN.invoke(app, ["check", str(tmp_path / "x.yaml")])
    assert result.exit_code == 1
    assert "not valid Unicode" in result.stderr


def test_explain_says_which_line_decides(good: str) -> None:
    result = RUN.invoke(app, ["explain", good, "https://api.example.com/repos/acme/settings/x"])
    assert result.exit_code == 0
    assert result.stdout.startswith("deny: rule 'api-read' denies it")
    assert f"{good}:9" in result.stdout


def test_explain_with_an_expectation_fails_a_script_when_it_is_not_met(good: str) -> None:
    url = "https://api.example.com/repos/acme/x"
    assert RUN.invoke(app, ["explain", good, url, "--expect", "allow"]).exit_code == 0
    assert RUN.invoke(app, ["explain", good, url, "--expect", "deny"]).exit_code == 1
    found = json.loads(RUN.invoke(app, ["explain", good, url, "--json"]).stdout)
    assert (found["allowed"], found["rule"], found["line"]) == (True, "api-read", 8)
    assert found["secrets"] == [{"ref": "vcs-token", "in": "header", "name": "authorization", "as": "bearer"}]


def test_explain_of_no_address_is_wrong_use(good: str) -> None:
    assert RUN.invoke(app, ["explain", good, "nonsense"]).exit_code == 2


def test_a_bad_document_is_never_sent(bad: str) -> None:
    result = RUN.invoke(app, ["apply", bad, "--address", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "port must be" in result.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_fine(path: Path) -> None:
    assert RUN.invoke(app, ["check", str(path)]).exit_code == 0


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
