"""`paddock sandbox`: see, enter and end sandboxes that run."""

import asyncio
import json
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.cli import codes, reach, render
from paddock.cli.forward import Interrupts, forward, write
from paddock.cli.run import place, seconds, variable
from paddock.contracts.errors import ErrorKind, PaddockError

if TYPE_CHECKING:
    from paddock.client.run import Run

app = typer.Typer(help="Sandboxes that run: see, enter and end them.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="A sandbox's name, or its workflow id.")]
_QUIET_S = 0.3
_LITTLE = 64 << 10


@app.command("ls")
def ls(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Those that ended too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """List sandboxes, newest first."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            found = [info async for info in paddock.list(all_, limit)]
        if json_:
            for info in found:
                print(json.dumps({name: _plain(getattr(info, name)) for name in info.__slots__}))
            return codes.FINE
        rows = [
            (i.name, i.state, i.host, i.policy, i.owner, _age(i.started), _left(i.lease_end, i.ended)) for i in found
        ]
        render.table(("name", "state", "host", "policy", "owner", "age", "lease"), rows)
        return codes.FINE

    render.finish(work(), json_)


@app.command("show")
def show(
    name: NameArgument,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Where a sandbox is; of one that ended, its report with the receipts."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            report = await paddock.report(name)
            if report is not None:
                if json_:
                    print(report.model_dump_json())
                else:
                    render.receipts(report)
                return codes.FINE
            status = await paddock.status(name)
        if json_:
            print(status.model_dump_json())
        else:
            rows = [(field.replace("_", " "), str(value)) for field, value in status.model_dump(mode="json").items()]
            render.table(("field", "value"), [row for row in rows if row[1] not in ("", "None")])
        return codes.FINE

    render.finish(work(), json_)


@app.command("stop")
def stop(
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "stopped at the command line",
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """End a sandbox and wait for its receipts."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            report = await paddock.stop(name, reason)
        if json_:
            print(report.model_dump_json())
        else:
            render.receipts(report)
        return codes.FINE

    render.finish(work(), json_)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    name: NameArgument,
    argv: Annotated[list[str], typer.Argument(metavar="[--] ARGV...", help="The program and its arguments.")],
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value, or NAME to pass it on.")] = None,
    in_: Annotated[list[str] | None, typer.Option("--in", help="File or directory to bring in, PATH[:GUEST].")] = None,
    cwd: Annotated[str, typer.Option(help="Where the program starts.")] = "/work",
    timeout: Annotated[str, typer.Option(help="Longest run; exit code 124 after it.")] = "1h",
    json_: Annotated[bool, typer.Option("--json", help="The result as the last line of standard output.")] = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Run one more program in a sandbox; options come before NAME, exit codes are those of `paddock run`.

    Ctrl-C leaves, and the task goes on.
    """
    fields: dict[str, Any] = {
        "env": dict(variable(text) for text in env or ()),
        "timeout_s": seconds(timeout),
        "cwd": cwd,
    }
    inputs = dict(place(text) for text in in_ or ())
    program = argv[1:] if argv[0] == "--" else argv
    if not program:
        raise typer.BadParameter("name a program, as in `paddock sandbox exec NAME -- ls`")

    async def work() -> int:
        with Interrupts(_say):
            async with reach.paddock(address, profile, state) as paddock:
                box = await paddock.attach(name)
                try:
                    task = await box.run(program, inputs=inputs, **fields)
                    done = await forward(task)
                    await box.settle()  # so that the next `exec` does not come too early
                finally:
                    await box.close()
        if done.error is not None:
            render.error(done.error)
        if json_:
            print(done.model_dump_json(), flush=True)
        return codes.of_task(done)

    render.finish(work(), json_, code=lambda _: codes.PADDOCK_FAILED)


@app.command("logs")
def logs(
    name: NameArgument,
    task: Annotated[int | None, typer.Option(min=1, help="The task's number; the last one by default.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the task ends.")] = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """A task's output from its beginning; without -f, what has come so far."""

    async def work() -> int:
        with Interrupts(_say):
            async with reach.paddock(address, profile, state) as paddock:
                status = await paddock.status(name)
                if not status.tasks:
                    words = "no task has run in this sandbox yet"
                    raise PaddockError(ErrorKind.NOT_FOUND, words, field=name, remedy="start one with `exec`")
                box = await paddock.attach(name)
                try:
                    run = box.task(task or status.tasks)
                    if follow:
                        await forward(run)
                    else:
                        await _so_far(run)
                finally:
                    await box.close()
        return codes.FINE

    render.finish(work())


async def _so_far(run: "Run") -> None:
    """What is there: until the task's end, a moment's silence, or a second in which only little came."""
    clock = asyncio.get_running_loop().time
    since, taken = clock(), 0
    async with aclosing(run.chunks()) as chunks:
        while True:
            try:
                async with asyncio.timeout(_QUIET_S):
                    chunk = await anext(chunks)
            except (TimeoutError, StopAsyncIteration):
                return
            await write(chunk)
            taken += len(chunk.data)
            if clock() - since > 1:
                if taken < _LITTLE:
                    return
                since, taken = clock(), 0


def _say(words: str) -> None:
    print(f"paddock: {words}", file=sys.stderr)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _span(total: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if total >= size:
            return f"{total / size:.0f}{unit}"
    return f"{max(total, 0):.0f}s"


def _age(began: datetime | None) -> str:
    return _span((datetime.now(UTC) - began).total_seconds()) if began else ""


def _left(end: datetime | None, ended: datetime | None) -> str:
    return "" if end is None or ended is not None else f"{_span((end - datetime.now(UTC)).total_seconds())} left"
