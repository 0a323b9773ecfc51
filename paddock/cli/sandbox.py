"""`paddock sandbox`: start, see, enter and end sandboxes."""

import asyncio
import json
import secrets
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.cli import codes, reach, render, spec
from paddock.cli.forward import Interrupts, forward, write
from paddock.contracts.errors import ErrorKind, PaddockError

if TYPE_CHECKING:
    from paddock.client.run import Run
    from paddock.contracts.status import Status

app = typer.Typer(help="Sandboxes: start, see, enter and end them.", no_args_is_help=True, add_completion=False)
NameArgument = Annotated[str, typer.Argument(help="A sandbox's name, or its workflow id.")]
_FIRST_S = 2.0  # the way to the host takes its time
_QUIET_S = 0.3
_LITTLE = 64 << 10


@app.command("start")
def start(
    name: spec.NameOption = None,
    image: spec.ImageOption = "base",
    policy: spec.PolicyOption = "deny-all",
    in_: spec.InOption = None,
    lifetime: spec.LifetimeOption = "1h",
    idle: Annotated[str, typer.Option("--idle", help="It ends after so long without a task.")] = "30m",
    memory: spec.MemoryOption = 256,
    vcpu: spec.VcpuOption = 1,
    disk: spec.DiskOption = 1024,
    environment: spec.EnvironmentOption = "local",
    wait: spec.WaitOption = "5m",
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Start a sandbox that stays, for `exec`, and print its name. The same name and options again find the same one."""
    fields = spec.fields(
        image=image, environment=environment, vcpu=vcpu, memory=memory, disk=disk, lifetime=lifetime, wait=wait
    )
    fields["idle_s"] = spec.seconds(idle)
    inputs, named = spec.places(in_), name or secrets.token_hex(6)

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            fields["policy"] = await spec.policy_name(paddock, policy)
            box = await paddock.start(name=named, inputs=inputs, **fields)
            await box.close()
        if json_:
            known = {"sandbox_id": box.sandbox_id, "workflow_id": box.workflow_id, "host": box.host, "made": box.made}
            print(json.dumps({"name": named, **known}))
        else:
            print(named)
            if not box.made:
                _say(f"{named} runs already, with these options")
        return codes.FINE

    render.finish(work(), json_)


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
    env: spec.EnvOption = None,
    in_: spec.InOption = None,
    cwd: spec.CwdOption = "/work",
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
        "env": dict(spec.variable(text) for text in env or ()),
        "timeout_s": spec.seconds(timeout),
        "cwd": cwd,
    }
    inputs = spec.places(in_)
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
    """A task's output from its beginning; without -f, what has come so far. Kept for an hour after the end."""

    async def work() -> int:
        with Interrupts(_say):
            async with reach.paddock(address, profile, state) as paddock:
                number = _task(await paddock.status(name), task, name)
                box = await paddock.reopen(name)
                try:
                    if follow or box.late:
                        await forward(box.task(number))
                    else:
                        await _so_far(box.task(number))
                finally:
                    await box.close()
        return codes.FINE

    render.finish(work())


def _task(status: "Status", task: int | None, name: str) -> int:
    """The task that is meant; raises PaddockError when there is none such."""
    over = status.state == "ended"
    if not status.tasks:
        words = "no task ran in this sandbox" if over else "no task has run in this sandbox yet"
        raise PaddockError(ErrorKind.NOT_FOUND, words, field=name, remedy="" if over else "start one with `exec`")
    if task is not None and task > status.tasks:
        words = f"there is no task {task}; this sandbox {'had' if over else 'has had'} {status.tasks}"
        raise PaddockError(ErrorKind.NOT_FOUND, words, field=name, remedy=f"--task 1 to {status.tasks}")
    return task or status.tasks


async def _so_far(run: "Run") -> None:
    """What is there: until the task's end, a moment's silence, or a second in which only little came."""
    clock = asyncio.get_running_loop().time
    since, taken, patience = clock(), 0, _FIRST_S
    async with aclosing(run.chunks()) as chunks:
        while True:
            try:
                async with asyncio.timeout(patience):
                    chunk = await anext(chunks)
            except (TimeoutError, StopAsyncIteration):
                return
            await write(chunk)
            taken, patience = taken + len(chunk.data), _QUIET_S
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
