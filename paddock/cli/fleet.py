"""`paddock fleet`: what runs without an owner on an environment's hosts, found and freed."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paddock.cli import codes, reach, render
from paddock.cli.spec import seconds
from paddock.contracts.errors import PaddockError
from paddock.contracts.fleet import CleanupProgress, CleanupReport, CleanupSpec, Row

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="All hosts of an environment: find and free what nobody owns.", no_args_is_help=True, add_completion=False
)


@app.callback()
def _fleet() -> None:
    pass  # so that `cleanup` stays a word of its own while it is the only command


_HELP: Final = (
    "Sweep an environment now: free what no open workflow owns, on its hosts and at its provider, with a receipt for "
    "each thing.\n\n"
    "The same runs every 15 minutes by itself. Something is freed only when it is older than the grace time and was "
    "found without an owner twice, some minutes apart; so a sweep that finds something waits. Ctrl-C leaves, and the "
    "sweep goes on.\n\n"
    "Exit code: 0 nothing is wrong (any more); 1 a person has to look at something, or a dry run found something to "
    "free; 2 wrong use; 3 it cannot tell: a host or the provider did not answer, or another sweep is going on."
)


@app.command("cleanup", help=_HELP)
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look and report; free nothing.")] = False,
    allow: Annotated[
        int,
        typer.Option(
            "--allow", min=0, metavar="N", help="Free up to N sandboxes and N machines at once, where more stop it."
        ),
    ] = 0,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="Leave alone what is younger than this, as in 90s or 10m.")
    ] = "10m",
    between: Annotated[
        str, typer.Option("--between", metavar="TIME", help="Time between the two looks that must agree.")
    ] = "5m",
    environment: Annotated[str, typer.Option("--environment", help="Which environment to sweep.")] = "local",
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    fields: dict[str, Any] = {
        "environment": environment,
        "dry_run": dry_run,
        "allow": allow,
        "grace_s": seconds(grace),
        "between_s": seconds(between),
    }

    async def work() -> int:
        from pydantic import ValidationError

        from paddock.client.failures import bad_spec
        from paddock.client.fleet import cleanup as sweep

        try:
            spec = CleanupSpec(**fields)
        except ValidationError as wrong:
            raise bad_spec(wrong) from wrong
        async with reach.paddock(address, profile, state) as paddock:
            report = await sweep(paddock.client, spec, _Watcher())
        if json_:
            print(report.model_dump_json(exclude_none=True), flush=True)
        else:
            _show(report)
        return code_of(report)

    render.finish(work(), json_, code=_code_of_error)


def code_of(report: CleanupReport) -> int:
    """1 before 3: what is known to be wrong matters more than what is not known."""
    if report.needs_a_person:
        return codes.BROKEN
    return codes.CANNOT_TELL if report.incomplete else codes.FINE


def _code_of_error(wrong: PaddockError) -> int:
    from paddock.client.fleet import SweepGoingOn

    return codes.CANNOT_TELL if isinstance(wrong, SweepGoingOn) else codes.of_error(wrong.kind)


class _Watcher:
    """Says on standard error where the sweep is, once for each stage."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, now: CleanupProgress) -> None:
        words = now.stage
        if now.wakes_at:
            clock = now.wakes_at.astimezone().strftime("%H:%M:%S")
            left = max(0, round((now.wakes_at - datetime.now(UTC)).total_seconds()))
            words = f"{now.suspects} suspect: the second look is at {clock}, in {left} s"
        if now.stage not in (self._said, "done"):
            self._said = now.stage
            print(f"paddock: {words}", file=sys.stderr, flush=True)


def _show(report: CleanupReport) -> None:
    if report.rows:
        rows = [(r.action, r.kind, r.id, r.host, ", ".join(r.holds), _age(r.age_s), _why(r)) for r in report.rows]
        render.table(("action", "what", "id", "host", "holds", "age", "why"), rows)
    if report.more:
        print(f"and {report.more} more")
    out = render.console(stderr=False)
    for row in report.rows:
        if row.receipts:
            _receipts(out, row)
    counts = ", ".join(f"{count} {action}" for action, count in report.counts.items()) or "nothing found"
    looked = f"{report.hosts} host{'s' if report.hosts != 1 else ''}, {report.known} sandboxes known"
    if report.machines or report.strange:
        looked += f", machines known: {report.machines}, things not surely ours: {report.strange}"
    dry = " (dry run: nothing was freed)" if report.dry_run else ""
    print(f"{report.environment}: {counts}; {looked}{dry}")
    if report.saves_per_hour:
        print(_saves(report))
    for words in report.incomplete:
        print(f"not complete: {words}")
    if report.asks:
        print(f"a person must decide: {report.asks}")


def _receipts(out: "Console", row: Row) -> None:
    from rich.markup import escape

    proved = [receipt.resource for receipt in row.receipts if receipt.gone != "unproved"]
    out.print(f"  {escape(row.id)}: proved gone: {escape(', '.join(proved) or 'nothing')}", soft_wrap=True)
    for receipt in row.receipts:
        if receipt.gone == "unproved":
            words = f"  {row.id}: not proved gone: {receipt.resource} {receipt.id}: {receipt.checked_by}"
            out.print(escape(words), soft_wrap=True)


def _why(row: Row) -> str:
    if row.cost_per_hour is None:
        return row.why
    cost = f"{row.cost_per_hour:.4f} {row.currency}".rstrip()
    return f"{row.why} ({cost} an hour{_of(row.price_as_of)})"


def _saves(report: CleanupReport) -> str:
    sums = " and ".join(f"{sum_:.4f} {currency}".rstrip() for currency, sum_ in sorted(report.saves_per_hour.items()))
    return f"this {'would save' if report.dry_run else 'saves'} {sums} an hour{_of(report.price_as_of)}"


def _of(day: datetime | None) -> str:
    return f" by prices of {day:%Y-%m-%d}" if day else ""


def _age(age_s: float | None) -> str:
    if age_s is None:
        return "?"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if age_s >= size:
            return f"{age_s / size:.0f}{unit}"
    return f"{age_s:.0f}s"
