"""The `paddock` program: its commands, each imported when it is asked for."""

import os
import sys
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from paddock import __version__
from paddock.cli import codes

COMMANDS: Final = {
    "run": ("paddock.cli.run", "run"),
    "up": ("paddock.cli.up", "up"),
    "sandbox": ("paddock.cli.sandbox", "app"),
    "policy": ("paddock.cli.policy", "app"),
    "secret": ("paddock.cli.secret", "app"),
    "audit": ("paddock.cli.audit", "app"),
    "pool": ("paddock.cli.pool", "app"),
    "host": ("paddock.cli.host", "app"),
    "fleet": ("paddock.cli.fleet", "app"),
    "worker": ("paddock.cli.worker", "app"),
    "doctor": ("paddock.cli.machine", "doctor"),
    "setup": ("paddock.cli.machine", "setup"),
}
"""In the order of the help: where each command lives. Add one here and nowhere else."""

_ARGV_AT_THE_END: Final = frozenset({"run"})


class Lazy(TyperGroup):
    """Imports a command when it is named, so that none waits for the libraries of another."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        try:
            found = getattr(import_module(module), attribute)
        except ImportError as wrong:
            return _absent(cmd_name, wrong)
        return _command(cmd_name, found)


def _command(name: str, found: Any) -> Any:
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        settings = {"allow_interspersed_args": False} if name in _ARGV_AT_THE_END else {}
        single.command(name, context_settings=settings)(found)
        found = single
    made = get_command(found)
    made.name = name
    return made


def _absent(name: str, wrong: ImportError) -> Any:
    """In place of a command whose libraries are not installed: says so when it is run."""

    def absent(args: list[str] = typer.Argument(None)) -> None:
        """Not installed here: needs the extra `host`."""
        print(f"paddock: `{name}` needs more than is installed: {wrong}", file=sys.stderr)
        print("  → install paddock[host]", file=sys.stderr)
        raise typer.Exit(codes.WRONG_USE)

    single = typer.Typer(add_completion=False)
    single.command(name, context_settings={"ignore_unknown_options": True})(absent)
    return get_command(single)


app = typer.Typer(
    cls=Lazy,
    help="AI agents in supervised microVMs, with people in charge of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="The version, and nothing else.", is_eager=True, callback=_say_version
    ),
) -> None:
    pass


def main() -> None:
    """The program; a broken pipe or Ctrl-C ends it quietly."""
    code: str | int | None = codes.FINE
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = codes.INTERRUPTED
    if "temporalio.bridge" not in sys.modules or isinstance(code, str):
        sys.exit(code)
    # The exit code is what scripts see: the SDK's threads may not spoil it while the interpreter is taken down.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code or codes.FINE)


if __name__ == "__main__":
    main()
