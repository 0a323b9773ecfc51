"""`paddock host`: the machines that run sandboxes, seen, drained and joined."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from paddock.cli import codes, reach, render
from paddock.cli.pool import one_line, span
from paddock.cli.spec import seconds
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.report import Gone, Receipt

if TYPE_CHECKING:
    from paddock.client.hosts import Host, HostInfo
    from paddock.contracts.ground import Grown, HostReport
    from paddock.embedded.finding import Finding
    from paddock.host.config import HostConfig

app = typer.Typer(help="Hosts: the machines that run sandboxes.", no_args_is_help=True, add_completion=False)
EnvironmentArgument = Annotated[str, typer.Argument(metavar="ENV", help="The host's environment.")]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="The host's name.")]
WATCH_S: Final = 1.0
# `paddock setup` and `paddock up` need these; a host runs without them.
_NOT_FOR_A_HOST: Final = frozenset({"erofs-utils", "mmdebstrap", "python3-venv", "Temporal", "ports"})
_STAYS: Final = "the machine itself stays: end `paddock worker host` there, or it joins again when its worker restarts"
_WAITS: Final = {
    "joining": "it has not said that it is there: it drains once it does",
    "unreachable": "it does not answer: it drains once it does, unless it is ended before",
    "draining": "it drains already: the first drain's time and reason count",
    "terminating": "it is being ended already",
}


@app.command("ls")
def ls(
    environment: Annotated[str | None, typer.Option("--environment", help="Only the hosts of this one.")] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Those that ended too, with how they did.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """List hosts, newest first: their state, their slots, and how many sandboxes are on them."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            found = [info async for info in paddock.hosts(environment, all_, limit)]
        if json_:
            for info in found:
                print(_json(info))
        else:
            titles = ("host", "environment", "state", "slots", "used", "since", *(("ended",) if all_ else ()))
            render.table(titles, [_row(info, all_) for info in found])
            if len(found) == limit:
                _say(f"the newest {limit}: there may be more, see --limit")
        return codes.FINE

    render.finish(work(), json_)


@app.command("show")
def show(
    environment: EnvironmentArgument,
    host: HostArgument,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Where a host is; of one that ended, its report: what was tried, how long it took, and what is proved gone."""

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            one = paddock.host(environment, host)
            report = await one.report()
            if report is None:
                info, made = await one.status(), await one.made()
        if report is not None:
            _report(report, json_)
        elif json_:
            print(_json(info, made=made))
        else:
            machine = "made by Paddock" if made else "joined"
            machine += f", by the pool of {environment}" if info.by_pool else ""
            rows = {
                "host": info.host,
                "environment": info.environment,
                "state": info.state,
                "machine": machine,
                "slots": f"{info.slots}, {info.used} used",
                "since": info.since.isoformat(timespec="seconds") if info.since else "",
            }
            render.table(("field", "value"), list(rows.items()))
        return codes.FINE

    render.finish(work(), json_)


@app.command("drain")
def drain(
    environment: EnvironmentArgument,
    host: HostArgument,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="Sandboxes that are left after it are stopped.")
    ] = "1h",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "drained at the command line",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it is gone; print its receipts.")] = False,
    json_: reach.JsonOption = False,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Empty a host and let it go: no new sandboxes there; what Paddock made is ended once the last one is gone.

    A machine that joined stays: it is gone for Paddock only. Ctrl-C leaves, and the drain goes on.
    """
    wait_s = seconds(wait)

    async def work() -> int:
        async with reach.paddock(address, profile, state) as paddock:
            one = paddock.host(environment, host)
            before, made = await one.status(), await one.made()
            await one.drain(wait_s=wait_s, reason=reason)
            if words := _WAITS.get(before.state):
                _say(f"{host}: {words}")
            if not made:
                _say(f"{host}: it joined; {_STAYS}")
            report = await _follow(one) if follow else None
        if report is not None:
            _report(report, json_)
            return codes.BROKEN if any(one.gone is Gone.UNPROVED for one in _receipts(report)) else codes.FINE
        if json_:
            counts = before.state not in ("draining", "terminating")
            print(_json(before, made=made, drain={"wait_s": wait_s, "reason": reason} if counts else None))
        else:
            print(f"{environment}/{host}: told to drain; sandboxes there: {before.used}")
        return codes.FINE

    render.finish(work(), json_)


@app.command("join")
def join(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The host's configuration, a JSON file.")],
    json_: Annotated[bool, typer.Option("--json", help="What keeps it from joining, as one JSON line.")] = False,
) -> None:
    """Make this machine a host: look whether it can be one, then run what `paddock worker host` runs.

    Exit code 1: `paddock doctor` finds something missing that a host needs; 2: the configuration is wrong.
    """
    try:
        if find_spec("worker") is None:
            words = "the workers are a package of their own"
            raise PaddockError(ErrorKind.SET_UP, words, remedy="install paddock-worker")
        lacking = _lacking(_checked(config))
    except PaddockError as wrong:
        render.error(wrong.info, json_)
        raise typer.Exit(codes.WRONG_USE) from None
    if lacking:
        if json_:
            print(json.dumps({"able": False, "findings": [one.model_dump(mode="json") for one in lacking]}))
        for one in lacking:
            _say(f"{one.name}: {one.seen}" + (f"\n  → {one.remedy}" if one.remedy else ""))
        _say("this machine cannot be a host yet; `paddock doctor` shows all that it looked at")
        raise typer.Exit(codes.BROKEN)
    os.execv(sys.executable, [sys.executable, "-m", "paddock.host", str(config)])


def _checked(file: Path) -> "HostConfig":
    """The configuration; raises PaddockError also for what else the host's worker would die of, again and again."""
    from pydantic import ValidationError

    from paddock.contracts.hosts import HostSpec

    try:
        from paddock.host.config import load
    except ImportError as wrong:
        words = f"a host needs more than is installed: {wrong}"
        raise PaddockError(ErrorKind.SET_UP, words, remedy="install `paddock[host]`") from wrong
    config = load(file)
    try:
        HostSpec(environment=config.environment, host=config.host)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        words = f"the host's configuration is wrong: {first['msg']}"
        raise PaddockError(ErrorKind.BAD_SPEC, words, field=f"{file}: {first['loc'][0]}") from None
    if config.relay and not os.access(config.relay_token_file, os.R_OK):
        words = "the relay's token cannot be read"
        raise PaddockError(
            ErrorKind.BAD_SPEC, words, field=f"{file}: relay_token_file", remedy="name a file that has it"
        )
    return config


def _lacking(config: "HostConfig") -> "list[Finding]":
    """What the doctor misses here, and a host needs; takes a second or two."""
    from paddock.embedded.doctor import Choice, examine
    from paddock.embedded.finding import Health

    kernel, qemu = (Path(one) if one else None for one in (config.kernel, config.qemu))
    own = Choice(kernel=kernel, qemu=qemu)
    found = examine(own, cache=Path(config.cache)).findings
    return [one for one in found if one.health is Health.MISSING and one.name not in _NOT_FOR_A_HOST]


async def _follow(host: "Host") -> "HostReport":
    """Its report once it is gone; each new state is said on standard error."""
    ended, said = asyncio.ensure_future(host.result()), ""
    try:
        while not ended.done():
            await asyncio.wait((ended,), timeout=WATCH_S)
            try:
                info = await host.status()
            except PaddockError:
                continue  # no control worker answers just now; the result says what became of it
            words = f"{info.state}, sandboxes: {info.used}" if info.ended is None else info.state
            if words != said:
                said = words
                _say(f"{host.host}: {words}")
        return ended.result()
    finally:
        ended.cancel()


def _report(report: "HostReport", as_json: bool) -> None:
    if as_json:
        print(report.model_dump_json())
        return
    grown = report.grown
    print(f"{report.environment}/{report.host}: {report.state}{f': {one_line(report.why)}' if report.why else ''}")
    if grown is None:
        print(f"it joined: Paddock made nothing for it, and ended nothing; {_STAYS}")
        return
    if grown.choice is not None:
        print(f"attempt {grown.attempt}: {grown.choice}")
    if grown.steps_ms:
        print(" · ".join(f"{name} {took:.0f} ms" for name, took in grown.steps_ms.items()))
    _tried(grown)
    if receipts := _receipts(report):
        print()
        rows = [(one.resource, one.id, one.gone.value, one_line(one.checked_by)) for one in receipts]
        render.table(("receipt", "id", "gone", "checked by"), rows)
    else:
        print("nothing was made, so nothing had to be ended")


def _tried(grown: "Grown") -> None:
    if grown.tried:
        print()
        rows = [(str(one.attempt), str(one.choice), one.step, one.kind, one_line(one.why)) for one in grown.tried]
        render.table(("failed attempt", "choice", "step", "kind", "why"), rows)


def _receipts(report: "HostReport") -> tuple[Receipt, ...]:
    """Of every attempt, in their order."""
    tried = report.grown.tried if report.grown else ()
    return *(receipt for one in tried for receipt in one.receipts), *report.receipts


def _json(info: "HostInfo", **more: object) -> str:
    return json.dumps({name: _plain(value) for name, value in asdict(info).items()} | more)


def _plain(value: Any) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _row(info: "HostInfo", with_end: bool) -> tuple[str, ...]:
    open_ = info.ended is None
    row = (info.host, info.environment, info.state, str(info.slots), str(info.used) if open_ else "", _ago(info.since))
    return (*row, *((_ago(info.ended),) if with_end else ()))


def _ago(when: datetime | None) -> str:
    return f"{span((datetime.now(UTC) - when).total_seconds())} ago" if when else ""


def _say(words: str) -> None:
    print(f"paddock: {words}", file=sys.stderr, flush=True)
