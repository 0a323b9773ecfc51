"""`paddock doctor` and `paddock setup`: what this machine can do, and making it able."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paddock.contracts.errors import PaddockError
from paddock.embedded import assets
from paddock.embedded.doctor import Choice, Diagnosis, examine
from paddock.embedded.finding import Health
from paddock.embedded.progress import Done
from paddock.embedded.setup import Options, remembered, run

KernelOption = Annotated[Path | None, typer.Option("--kernel", help="A guest kernel of your own (ELF or bzImage).")]
QemuOption = Annotated[Path | None, typer.Option("--qemu", "--vmm", help="A QEMU of your own.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]

_COLOUR = {Health.FINE: "green", Health.WEAK: "yellow", Health.MISSING: "red"}


def register(app: typer.Typer) -> None:
    """Adds `doctor` and `setup` to the program's commands."""
    app.command("doctor")(doctor)
    app.command("setup")(setup)


def doctor(kernel: KernelOption = None, qemu: QemuOption = None, json_: JsonOption = False) -> None:
    """Show what this machine can do, what is missing, and the command that fixes it. Exit code 1: something is."""
    diagnosis = examine(Choice(kernel=kernel, qemu=qemu))
    if json_:
        print(diagnosis.model_dump_json(indent=2))
    else:
        _show(diagnosis, Console())
    raise typer.Exit(0 if diagnosis.able else 1)


def setup(
    kernel: KernelOption = None,
    qemu: QemuOption = None,
    temporal: Annotated[Path | None, typer.Option(help="A Temporal CLI of your own.")] = None,
    verify: Annotated[bool, typer.Option(help="Read every file again and compare its digest.")] = False,
    defaults: Annotated[bool, typer.Option(help="Forget the kernel, VMM and Temporal named before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Use sudo without asking.")] = False,
    json_: JsonOption = False,
) -> None:
    """Install and build what is missing, once; look at it again each time. Exit code 2: do something first.

    A kernel (drivers built in), VMM or Temporal CLI that is named here is used from then on.
    """
    console = Console(stderr=json_)
    named = {"kernel": kernel, "qemu": qemu, "temporal": temporal}
    given = {name: path.absolute() for name, path in named.items() if path is not None}
    before = {} if defaults else remembered(assets.cache_dir()).model_dump()
    try:
        options = Options.model_validate({**before, **given})
        done = run(console, lambda question: yes or _agree(console, question), options, verify=verify)
    except PaddockError as error:
        if json_:
            print(json.dumps({"error": error.info.model_dump(mode="json")}))
        console.print(f"[red]set-up stopped:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if json_:
        print(json.dumps({"cache": str(assets.cache_dir()), "steps": [_step(one) for one in done]}))
    elif done:
        console.print(f"  set up in {sum(one.seconds for one in done):.1f} s, kept in {assets.cache_dir()}")


def _agree(console: Console, question: str) -> bool:
    """Asks on a terminal; where nobody can answer, the answer is no."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return False
    return typer.confirm(f"  {question}", default=True)


def _step(done: Done) -> dict[str, str | float]:
    return {"name": done.name, "state": done.state.value, "seconds": done.seconds, "detail": done.detail}


def _show(diagnosis: Diagnosis, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "seen", "to improve it"):
        table.add_column(title, overflow="fold")
    for one in diagnosis.findings:
        mark = f"[{_COLOUR[one.health]}]{one.health}[/]"
        table.add_row(mark, escape(one.name), escape(one.seen), escape(one.remedy))
    console.print(table)
    missing = [one.name for one in diagnosis.findings if one.health is Health.MISSING]
    if missing:
        console.print(f"\n[red]missing:[/] {escape(', '.join(missing))}", highlight=False)
    else:
        console.print("\nthis machine runs sandboxes", highlight=False)
