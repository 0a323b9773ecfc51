"""`paddock run`: one task in a sandbox of its own, live output, then the receipts."""

import asyncio
import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.cli import codes, reach, render
from paddock.cli.forward import Interrupts, forward
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.names import sandbox_workflow_id

PATIENCE_S = 15.0

if TYPE_CHECKING:
    from paddock.client.connect import Paddock
    from paddock.client.sandbox import Sandbox
    from paddock.contracts.hosts import TaskDone
    from paddock.contracts.report import SandboxReport
    from paddock.contracts.streams import Chunk

_DURATION = re.compile(r"(\d{1,9})(s|m|h|d|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`90`, `90s`, `15m`, `2h` or `1d`, in seconds."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r}: a number of seconds, or like 90s, 15m, 2h, 1d")
    return int(found[1]) * _SECONDS[found[2]]


def variable(text: str) -> tuple[str, str]:
    """`NAME=value`, or `NAME` for the value that it has here."""
    name, equals, value = text.partition("=")
    if not name:
        raise typer.BadParameter(f"{text!r}: NAME=value, or NAME to pass on its value here")
    if equals:
        return name, value
    if name not in os.environ:
        raise typer.BadParameter(f"{name} is not set here: give it as {name}=value")
    return name, os.environ[name]


def place(text: str) -> tuple[str, Path]:
    """`PATH` or `PATH:GUEST`: a directory becomes /work itself, a file keeps its name, GUEST is below /work."""
    local, colon, guest = text.rpartition(":")
    if colon and local and not Path(text).exists():
        return guest, Path(local)
    path = Path(text)
    return ("." if path.is_dir() else path.resolve().name), path


def run(
    argv: Annotated[
        list[str] | None, typer.Argument(metavar="[--] ARGV...", help="The program and its arguments.")
    ] = None,
    image: Annotated[str, typer.Option(help="What the sandbox boots.")] = "base",
    policy: Annotated[str, typer.Option(help="What it may reach: a name, name@revision, or a file.")] = "deny-all",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value, or NAME to pass it on.")] = None,
    in_: Annotated[list[str] | None, typer.Option("--in", help="File or directory to bring in, PATH[:GUEST].")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory for what comes out.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="Glob below /work of what comes out; default all.")] = None,
    lifetime: Annotated[str, typer.Option(help="Longest life of the sandbox: 90s, 15m, 2h.")] = "1h",
    timeout: Annotated[str | None, typer.Option(help="Longest run of the task; exit code 124 after it.")] = None,
    memory: Annotated[int, typer.Option(help="MiB of memory.")] = 256,
    vcpu: Annotated[int, typer.Option(help="Virtual processors.")] = 1,
    disk: Annotated[int, typer.Option(help="MiB that it may write.")] = 1024,
    cwd: Annotated[str, typer.Option(help="Where the program starts.")] = "/work",
    name: Annotated[str | None, typer.Option(help="The sandbox's name; a fresh one by default.")] = None,
    environment: Annotated[str, typer.Option(help="Where it runs.")] = "local",
    wait: Annotated[str, typer.Option(help="Longest wait for a free slot.")] = "5m",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The task's output and nothing else.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="The report as the last line of standard output.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration, when the parts come up for this run.")] = None,
    state: reach.StateOption = None,
    address: reach.AddressOption = None,
    profile: reach.ProfileOption = None,
) -> None:
    """Run a program in a sandbox of its own. Exit code: the program's; 124 timed out, 125 Paddock failed.

    126 not executable, 127 not found, 128+n killed by signal n. With nothing running, all parts come up for this run.
    """
    if not argv:
        raise typer.BadParameter("name a program, as in `paddock run -- echo hello`")
    lifetime_s = seconds(lifetime)
    fields: dict[str, Any] = {
        "image": image,
        "environment": environment,
        "shape": {"vcpu": vcpu, "memory_mib": memory, "disk_mib": disk},
        "lifetime_s": lifetime_s,
        "place_timeout_s": seconds(wait),
        "task": {
            "argv": argv,
            "env": dict(variable(text) for text in env or ()),
            "cwd": cwd,
            "timeout_s": seconds(timeout) if timeout else min(lifetime_s, 7 * 86400),
        },
        "outputs": [{"glob": glob} for glob in (output or ["**"])] if out else [],
    }
    inputs = dict(place(text) for text in in_ or ())
    show = _Show(quiet or json_)
    work = _run(
        fields, policy, inputs, out, name or secrets.token_hex(6), show, json_, (address, profile, state, config)
    )
    render.finish(work, json_, code=lambda _: codes.PADDOCK_FAILED)


class _Show:
    """What happens, on standard error: a spinner on a terminal, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._spinner: Any = None
        self.mid_line = False

    def saw(self, chunk: "Chunk") -> None:
        """Remember whether the task's output stands in the middle of a line."""
        if chunk.chan == 1 and chunk.data:
            self.mid_line = not chunk.data.endswith(b"\n")

    def step(self, words: str) -> None:
        if self.quiet or not sys.stderr.isatty():
            return
        if self._spinner is None:
            self._spinner = render.console().status("")
            self._spinner.start()
        from rich.markup import escape

        self._spinner.update(f"[dim]{escape(words)}[/]")

    def progress(self, done: int, of: int) -> None:
        self.step(f"uploading {done >> 10} of {of >> 10} KiB")

    def still(self) -> None:
        """Leave the terminal to the task."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def say(self, words: str) -> None:
        self.still()
        if not self.quiet:
            print(f"paddock: {words}", file=sys.stderr)


async def _run(
    fields: dict[str, Any],
    policy: str,
    inputs: dict[str, Path],
    out: Path | None,
    name: str,
    show: _Show,
    as_json: bool,
    where: tuple[str | None, str | None, Path | None, Path | None],
) -> int:
    address, profile, state, config = where
    with Interrupts(show.say) as interrupts:
        try:
            async with reach.paddock_or_own(address, profile, state, config, show.step) as paddock:
                fields["policy"] = await policy_name(paddock, policy)
                interrupts.stop = lambda: paddock.stop(name, "interrupted at the command line")
                show.step(f"starting sandbox {name}")
                report = await _sandbox(paddock, fields, inputs, out, name, show)
        finally:
            show.still()
    if report.error is not None:
        show.still()
        render.error(report.error)
    if not show.quiet:
        render.receipts(report)
    if as_json:
        print(("\n" if show.mid_line else "") + report.model_dump_json(), flush=True)
    return codes.INTERRUPTED if interrupts.seen else codes.of_report(report)


async def _sandbox(
    paddock: "Paddock", fields: dict[str, Any], inputs: dict[str, Path], out: Path | None, name: str, show: _Show
) -> "SandboxReport":
    from paddock.client.errors import ClientError

    box: Sandbox | None = None
    try:
        box = await paddock.start(name=name, inputs=inputs, progress=show.progress, **fields)
        await _follow(box, show)
        show.step("collecting receipts")
        report = await _ended(box, show)
    except ClientError as wrong:
        if wrong.report is None:
            raise
        report = wrong.report
    except BrokenPipeError:
        await paddock.stop(name, "nobody reads its output any more")
        raise
    finally:
        if box is not None:
            await box.close()
    if out is not None and box is not None and report.outputs:
        out.mkdir(parents=True, exist_ok=True)
        show.step(f"fetching {len(report.outputs)} files")
        await box.download(report.outputs, out)
    return report


async def _ended(box: "Sandbox", show: _Show) -> "SandboxReport":
    """The report; what holds it up is said, because a sandbox stays `ending` until all of it is proved gone."""
    while True:
        try:
            return await asyncio.wait_for(asyncio.shield(box.end()), PATIENCE_S)
        except TimeoutError:
            if why := await box.delayed_by():
                show.say(f"still ending: {why}")


async def _follow(box: "Sandbox", show: _Show) -> "TaskDone | None":
    """The task's output; that it ended otherwise is what the report will say."""
    from paddock.client.errors import Unreachable

    try:
        return await forward(box.task(1), show.still, show.saw)
    except Unreachable as wrong:
        if not box.end().done():
            show.say(f"{wrong.info.message}; the sandbox goes on, its output is lost to this terminal")
        return None


async def policy_name(paddock: "Paddock", policy: str) -> str:
    """A policy's name; a file is checked and kept first, and named with its new revision."""
    path = Path(policy)
    if not (path.suffix in (".yaml", ".yml") or "/" in policy):
        return policy
    try:
        text = await asyncio.to_thread(path.read_text)
    except (OSError, UnicodeDecodeError) as wrong:
        words = wrong.strerror or str(wrong) if isinstance(wrong, OSError) else "not a text"
        raise PaddockError(
            ErrorKind.BAD_POLICY, f"the policy file cannot be read: {words}", field=policy, remedy="name another file"
        ) from wrong
    applied = await paddock.apply_policy(text, file=str(path), author=os.environ.get("USER", ""))
    return f"{applied.name}@{applied.revision}"


def workflow_id(name: str) -> str:
    """The id under which Temporal's UI shows a sandbox of this name."""
    return name if "/" in name else sandbox_workflow_id(name)
