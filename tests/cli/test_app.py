"""The program's own surface: every command answers to --help, and a missing library is said, not thrown."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from paddock import __version__
from paddock.cli.app import COMMANDS, app


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_help(name: str) -> None:
    ended = CliRunner().invoke(app, [name, "--help"])
    assert ended.exit_code == 0
    assert "Usage" in ended.output
    assert "Not installed" not in ended.output


def below(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below this one with its words, groups too."""
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        one = command.get_command(None, name)
        yield (*path, name), one
        yield from below(one, (*path, name))


def test_no_command_below_the_top_offers_to_install_a_completion() -> None:
    found = dict(below(get_command(app)))
    groups = {words[0] for words in found if len(words) > 1}
    assert groups >= {"sandbox", "policy", "secret", "audit", "fleet", "worker"}
    offers = {
        words: option for words, one in found.items() for p in one.params for option in p.opts if "complet" in option
    }
    assert offers == {}


def test_the_version_is_said() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__


def test_an_unknown_command_is_wrong_use() -> None:
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2


def test_a_command_whose_libraries_are_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paddock.cli.policy", None)
    ended = CliRunner().invoke(app, ["policy", "check", "--strict", "file.yaml"])
    assert ended.exit_code == 2
    assert "paddock[host]" in ended.output
