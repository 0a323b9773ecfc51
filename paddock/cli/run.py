"""`paddock run`: one task in a sandbox of its own, live output, then the receipts."""

import asyncio
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.cli import codes, reach, render, spec
from paddock.cli.forward import Interrupts, forward

PATIENCE_S = 15.0

if TYPE_CHECKING:
    from paddock.client.connect import Paddock
    from paddock.client.sandbox import Sandbox
    from paddock.contracts.hosts import TaskDone
    from paddock.contracts.report import SandboxReport
    from paddock.contracts.streams import Chunk


def run(
    argv: Annotated[
        list[str] | None, typer.Argument(metavar="[--] ARGV...", help="The program and its arguments.")
    ] = None,
    image: spec.ImageOption = "base",
    policy: spec.PolicyOption = "deny-all",
    env: spec.EnvOption = None,
    in_: spec.InOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory for what comes out.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="Glob below /work of what comes out; default all.")] = None,
    lifetime: spec.LifetimeOption = "1h",
    timeout: Annotated[str | None, typer.Option(help="Longest run of the task; exit code 124 after it.")] = None,
    memory: spec.MemoryOption = 256,
    vcpu: spec.VcpuOption = 1,
    disk: spec.DiskOption = 1024,
    cwd: spec.CwdOption = "/work",
    name: spec.NameOption = None,
    environment: spec.EnvironmentOption = "local",
    wait: spec.WaitOption = "5m",
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
    fields = spec.fields(
        image=image, environment=environment, vcpu=vcpu, memory=memory, disk=disk, lifetime=lifetime, wait=wait
    )
    longest = spec.seconds(timeout) if timeout else min(fields["lifetime_s"], 7 * 86400)
    variables = dict(spec.variable(text) for text in env or ())
    fields["task"] = {"argv": argv, "env": variables, "cwd": cwd, "timeout_s": longest}
    fields["outputs"] = [{"glob": glob} for glob in (output or ["**"])] if out else []
    inputs = spec.places(in_)
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
                fields["policy"] = await spec.policy_name(paddock, policy)
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
    from paddock.client.start import already

    box: Sandbox | None = None
    try:
        box = await paddock.start(name=name, inputs=inputs, progress=show.progress, **fields)
        if not box.made:
            raise already(box.workflow_id)
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
