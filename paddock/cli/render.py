"""What people read: errors in words, tables, the receipts at the end. Standard output belongs to the task."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from paddock.cli import codes
from paddock.contracts.errors import ErrorInfo, PaddockError

if TYPE_CHECKING:
    from rich.console import Console

    from paddock.contracts.report import Receipt, SandboxReport


_LOG_WIDTH: Final = 160


def console(stderr: bool = True) -> "Console":
    """A console that colours on a terminal only."""
    from rich.console import Console

    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if watched else _LOG_WIDTH)


def error(info: ErrorInfo, as_json: bool = False) -> None:
    """What went wrong, where, and what to do; as one JSON line on standard output when asked for."""
    from rich.markup import escape

    if as_json:
        print(json.dumps({"error": info.model_dump(mode="json")}), flush=True)
    where = f" [dim]({escape(info.field)})[/]" if info.field else ""
    out = console()
    out.print(f"[bold red]paddock:[/] {escape(info.message)}{where}", soft_wrap=True)
    if info.remedy:
        out.print(f"  [dim]→[/] {escape(info.remedy)}", soft_wrap=True)


def finish(
    work: Coroutine[Any, Any, int], as_json: bool = False, code: Callable[[PaddockError], int] | None = None
) -> None:
    """Run a command to its exit code; an error of Paddock's becomes words, never a traceback."""
    try:
        ended = asyncio.run(work)
    except PaddockError as wrong:
        error(wrong.info, as_json)
        ended = code(wrong) if code else codes.of_error(wrong.kind)
    except (KeyboardInterrupt, asyncio.CancelledError):
        ended = codes.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads; the interpreter would only complain about it
        ended = codes.PIPE_CLOSED
    raise typer.Exit(ended)


def receipts(report: "SandboxReport") -> None:
    """The end of a run: how it ended, where the time went, what the fence refused, and what is proved gone."""
    from rich.markup import escape
    from rich.table import Table

    out = console()
    took = report.steps_ms
    shown = [f"{name} {took[name]:.0f} ms" for name in took if "." not in name]
    colour = "green" if report.outcome == "succeeded" else "red" if report.outcome in _BAD else "yellow"
    words = f" · {escape(report.reason)}" if report.reason else ""
    out.print(f"[{colour}]{report.outcome}[/] {report.sandbox_id} on {report.host or 'no host'}{words}", soft_wrap=True)
    if shown:
        out.print(f"  [dim]{' · '.join(shown)}[/]", soft_wrap=True)
    for denial in report.denied:
        out.print(f"  [yellow]refused[/] {escape(denial.host)} ×{denial.count} {escape(denial.rule)}", soft_wrap=True)
    if report.audit.events:
        whole = "[green]verified[/]" if report.audit.verified else "[red]not verified[/]"
        out.print(f"  audit: {report.audit.events} events, {whole}, head {report.audit.head[:16]}", soft_wrap=True)
    if report.receipts:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("  receipt", "id", "gone", "checked by"):
            table.add_column(title, overflow="fold")
        for receipt in report.receipts:
            table.add_row(
                f"  {escape(receipt.resource)}", escape(receipt.id), _gone(receipt), escape(receipt.checked_by)
            )
        out.print(table)


_BAD = frozenset({"failed", "host-lost", "sandbox-lost", "refused", "error"})


def _gone(receipt: "Receipt") -> str:
    colour = {"proved": "green", "implied_by_host": "yellow"}.get(receipt.gone, "red")
    return f"[{colour}]{receipt.gone}[/]"


def table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A plain table on standard output; one line a row when nobody watches, so that other programs can read it."""
    from rich.markup import escape
    from rich.table import Table

    out = console(stderr=False)
    if not out.is_terminal:
        print("\n".join("\t".join(row) for row in (titles, *rows)))
        return
    made = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    out.print(made)
