"""`paddock worker`: the processes of a deployment of one's own, each started in place of this program."""

import os
import sys
from importlib.util import find_spec
from typing import Final

import typer

from paddock.cli import codes

app = typer.Typer(help="Start one of Paddock's own processes.", no_args_is_help=True, add_completion=False)
_PASS: Final = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _become(module: str, arguments: list[str]) -> None:
    if find_spec(module.partition(".")[0]) is None:
        print("paddock: the workers are a package of their own: install paddock-worker", file=sys.stderr)
        raise typer.Exit(codes.WRONG_USE)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


@app.command(context_settings=_PASS)
def control(ctx: typer.Context) -> None:
    """The control worker: every workflow. `paddock worker control --help` lists its options."""
    _become("worker.control", ctx.args)


@app.command(context_settings=_PASS)
def environment(ctx: typer.Context) -> None:
    """One environment's worker: calls to its provider, with its credentials only."""
    _become("worker.environment", ctx.args)


@app.command(context_settings=_PASS)
def host(ctx: typer.Context) -> None:
    """The keeper of one host, and through it recorder, broker, host worker and supervisors. One argument: its file."""
    _become("paddock.host", ctx.args)
