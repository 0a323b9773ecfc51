"""`paddock pool`: how many machines an environment keeps, what its pool does, and how large it may be."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.cli import codes, reach, render
from paddock.cli.spec import seconds
from paddock.contracts.errors import PaddockError
from paddock.contracts.pool import PoolHost, PoolStatus

if TYPE_CHECKING:
    from paddock.client.pool import Pool

app = typer.Typer(
    help="Pools of hosts: how many machines an environment keeps.", no_args_is_help=True, add_completion=False
)
EnvironmentArgument = Annotated[str, typer.Argument(metavar="ENV", help="The pool's environment.")]


@app.command("ls")
def ls(
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """List the open pools: hosts of minimum to maximum, slots free and coming, who waits, what was done last.

    Exit code 3: a pool did not answer.
    """

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            pools = [pool async for pool in paddock.pools()]
            said = await asyncio.gather(*(_ask(pool) for pool in pools))
        found = sorted(zip((pool.environment for pool in pools), said, strict=True), key=lambda one: one[0])
        if json_:
            for environment, one in found:
                print(one.model_dump_json() if isinstance(one, PoolStatus) else _failed(environment, one))
        else:
            titles = ("environment", "hosts", "free", "coming", "waiting", "did", "finding")
            render.table(titles, [_row(environment, one) for environment, one in found])
        return codes.CANNOT_TELL if any(isinstance(one, PaddockError) for one in said) else codes.FINE

    render.finish(work(), json_)


@app.command("show")
def show(
    environment: EnvironmentArgument,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Where a pool is: its size, its hosts, which kinds of machine it leaves alone for now, and why."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            said = await paddock.pool(environment).status()
        if json_:
            print(said.model_dump_json())
        else:
            _show(said)
        return codes.FINE

    render.finish(work(), json_)


@app.command("set")
def set_(
    environment: EnvironmentArgument,
    minimum: Annotated[
        int | None, typer.Option("--minimum", metavar="N", help="Hosts, also when nobody needs them.")
    ] = None,
    maximum: Annotated[int | None, typer.Option("--maximum", metavar="N", help="Hosts at the most.")] = None,
    free_slots: Annotated[
        int | None, typer.Option("--free-slots", metavar="N", help="Slots kept free beyond the demand.")
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option("--idle", metavar="TIME", help="How long a host is superfluous before it goes, as 10m."),
    ] = None,
    drain_wait: Annotated[
        str | None, typer.Option("--drain-wait", metavar="TIME", help="Then sandboxes of a leaving host are stopped.")
    ] = None,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Change how large a pool may be: only what is named changes, and the pool looks again at once.

    It lasts until the pool is closed; a new one begins with what its environment worker's settings say.
    """
    named = {"minimum": minimum, "maximum": maximum, "free_slots": free_slots}
    named |= {"idle_s": _time(idle, "--idle"), "drain_wait_s": _time(drain_wait, "--drain-wait")}
    changes = {name: value for name, value in named.items() if value is not None}
    if not changes:
        raise typer.BadParameter("name what to change, as in `paddock pool set ENV --maximum 5`")

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            said = await paddock.pool(environment).set(**changes)
        print(said.model_dump_json() if json_ else f"{said.environment}: {_size(said)}")
        if not json_ and len(said.hosts) > said.size.maximum:
            words = f"{len(said.hosts)} hosts are there: it makes no new ones, and drains what is superfluous"
            print(f"paddock: {words}", file=sys.stderr)
        return codes.FINE

    render.finish(work(), json_)


def _time(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else seconds(text)
    except typer.BadParameter as wrong:
        raise typer.BadParameter(f"{option}: {wrong.message}") from None


async def _ask(pool: "Pool") -> PoolStatus | PaddockError:
    """One that does not answer hides none of the others."""
    try:
        return await pool.status()
    except PaddockError as wrong:
        return wrong


def _failed(environment: str, wrong: PaddockError) -> str:
    return json.dumps({"environment": environment, "error": wrong.info.model_dump(mode="json")})


def _row(environment: str, said: PoolStatus | PaddockError) -> tuple[str, ...]:
    if isinstance(said, PaddockError):
        return environment, "?", "?", "?", "?", "", one_line(said.info.message)
    counts = (str(said.free), str(said.coming), str(said.waiting))
    return environment, _hosts(said), *counts, one_line(said.did), one_line(said.finding)


def _hosts(said: PoolStatus) -> str:
    return f"{len(said.hosts)} of {said.size.minimum}..{said.size.maximum}"


def _size(said: PoolStatus) -> str:
    size = said.size
    return (
        f"{size.minimum} to {size.maximum} hosts, {size.free_slots} slots kept free; a host that is superfluous for "
        f"{size.idle_s} s goes, and its sandboxes are stopped {size.drain_wait_s} s later"
    )


def _show(said: PoolStatus) -> None:
    rows = {
        "environment": said.environment,
        "hosts": _hosts(said),
        "size": _size(said),
        "free slots": f"{said.free}, {said.coming} coming",
        "waiting": str(said.waiting),
        "did": said.did,
        "finding": said.finding,
        "looked at": said.looked_at.isoformat(timespec="seconds") if said.looked_at else "not yet",
    }
    render.table(("field", "value"), [(name, one_line(value)) for name, value in rows.items() if value])
    if said.hosts:
        print()
        render.table(("host", "state", "slots", "used", "from", "age"), [_host(one) for one in said.hosts])
    if said.avoided:
        print()
        until = [(one, max(0, round((one.until - datetime.now(UTC)).total_seconds()))) for one in said.avoided]
        avoided = [(str(one.choice), f"{left} s", one_line(one.why)) for one, left in until]
        render.table(("left alone", "for", "why"), avoided)


def _host(one: PoolHost) -> tuple[str, ...]:
    return one.host, one.state, str(one.slots), str(one.used), "the pool" if one.made else "elsewhere", span(one.age_s)


def one_line(words: str) -> str:
    """Words of any length as one cell of a table that other programs read by lines and tabs."""
    return " ".join(words.split())


def span(total_s: float) -> str:
    """A time in its largest unit, in whole numbers."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if total_s >= size:
            return f"{total_s / size:.0f}{unit}"
    return f"{max(total_s, 0):.0f}s"
