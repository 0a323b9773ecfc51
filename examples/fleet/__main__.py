"""`make demo-fleet`: exit code 0 only when every environment brought a sandbox up and nothing of any is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from temporalio.exceptions import TemporalError

from examples.demo.settings import REPOSITORY, child_environment
from examples.demo.show import Show
from paddock.client import Paddock
from paddock.contracts import names
from paddock.contracts.errors import PaddockError
from paddock.contracts.ground import DrainSpec, HostReport
from paddock.contracts.report import Gone, Outcome, SandboxReport
from tests.observer import Allowed, Snapshot, adopt_orphans, reap_orphans, settle, snapshot
from tests.observer.snapshot import likely_places

CLOUDS = ("aws", "azure", "gcp", "onprem")
PADDOCK = Path(sys.executable).parent / "paddock"
READY_S, ENVIRONMENT_S = 120.0, 240.0
END_S = 300.0  # `paddock up` ends sandboxes (60), hosts (90), parts, and four emulators (20 each)


@dataclass
class Told:
    """What one environment did: its sandbox's report, its hosts' reports, and what each step took, in ms."""

    sandbox: SandboxReport
    hosts: list[HostReport]
    steps_ms: dict[str, float] = field(default_factory=dict)

    def as_report(self) -> dict[str, Any]:
        receipts = [one.model_dump(mode="json") for host in self.hosts for one in host.receipts]
        sandbox = self.sandbox.model_dump(mode="json")
        return {"sandbox": sandbox, "host_receipts": receipts, "steps_ms": self.steps_ms}


@contextlib.asynccontextmanager
async def fleet(directory: Path) -> AsyncIterator[dict[str, Any]]:
    """`paddock up --emulate` for the length of the block; the block gets its ready line."""
    state = directory / "state"
    shutil.rmtree(state, ignore_errors=True)
    with (directory / "up.log").open("wb") as errors:
        up = await asyncio.create_subprocess_exec(
            PADDOCK,
            *("up", "--state", str(state), "--emulate", ",".join(CLOUDS), "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=REPOSITORY,
            env=child_environment(),
            start_new_session=True,
        )
    try:
        assert up.stdout
        line = await asyncio.wait_for(up.stdout.readline(), READY_S)
        if not line:
            raise RuntimeError(f"`paddock up` ended: {(directory / 'up.log').read_text()[-2000:]}")
        yield json.loads(line)
    finally:
        if up.returncode is None:
            up.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(up.wait(), END_S)
        finally:
            if up.returncode is None:
                up.kill()
                await up.wait()


async def visit(paddock: Paddock, environment: str, show: Show) -> Told:
    """From no host to a sandbox's end, then the hosts drained until each is proved gone."""
    began = time.monotonic()
    box = await paddock.start(task={"argv": ["sh", "-c", "echo hello from $(hostname)"]}, environment=environment)
    words = b"".join([chunk.data async for chunk in box.task(1).chunks()]).decode(errors="replace").strip()
    demand = time.monotonic()
    report = await box.result()
    await box.close()
    show.line(f"{environment}: {words!r} on {report.host}, {demand - began:.1f} s from no host to its output")
    hosts = [await _drained(paddock, id_) for id_ in await _open_hosts(paddock, environment)]
    ended = time.monotonic()
    steps = {"demand_to_output": (demand - began) * 1e3, "end_to_last_receipt": (ended - demand) * 1e3}
    for host in hosts:
        for name, ms in (host.grown.steps_ms if host.grown else {}).items():
            steps[f"host.{name}"] = ms
    steps |= {f"sandbox.{name}": ms for name, ms in report.steps_ms.items()}
    return Told(report, hosts, {name: round(ms, 1) for name, ms in steps.items()})


async def _open_hosts(paddock: Paddock, environment: str) -> list[str]:
    await paddock.client.get_workflow_handle(names.pool_workflow_id(environment)).signal("close")
    prefix = names.host_workflow_id(environment, "")
    query = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{prefix}"'
    return [one.id async for one in paddock.client.list_workflows(query)]


async def _drained(paddock: Paddock, id_: str) -> HostReport:
    handle = paddock.client.get_workflow_handle(id_, result_type=HostReport)
    await handle.signal("drain", DrainSpec(reason="the demo is over", wait_s=0))
    return await handle.result()


def _ask(observe: str, what: str) -> Any:
    with urllib.request.urlopen(f"{observe}{what}", timeout=10) as answer:
        return json.load(answer)


def judge(environment: str, told: Told, held: list[Any], show: Show) -> None:
    """What each environment promises."""
    show.check(f"{environment}: the task succeeded", told.sandbox.outcome is Outcome.SUCCEEDED, told.sandbox.outcome)
    receipts = [*told.sandbox.receipts, *(one for host in told.hosts for one in host.receipts)]
    proved = bool(receipts) and all(one.gone is Gone.PROVED for one in receipts)
    show.check(f"{environment}: every receipt is proved", proved, f"{len(receipts)} receipts")
    show.check(f"{environment}: a host was made and is gone", any(host.receipts for host in told.hosts))
    show.check(f"{environment}: the cloud holds nothing", not held, json.dumps(held)[:400] if held else "")


def tables(told: dict[str, Told], calls: dict[str, dict[str, int]], show: Show) -> None:
    table = Table("environment", "host", "to output", "create", "boot", "prove", "to the last receipt", "API calls")
    for name, one in told.items():
        at = one.steps_ms
        row = [at.get(step, 0) for step in ("demand_to_output", "host.create", "host.boot", "host.prove")]
        row.append(at["end_to_last_receipt"])
        times = [f"{ms / 1e3:.2f} s" for ms in row]
        table.add_row(name, one.sandbox.host, *times, str(sum(calls[name].values())))
    show.console.print(table)


async def perform(directory: Path, show: Show) -> tuple[dict[str, Told], dict[str, dict[str, int]]]:
    with show.step("paddock up with four emulated clouds"):
        stack = contextlib.AsyncExitStack()
        up = await stack.enter_async_context(fleet(directory))
    async with stack, Paddock.connect(up["temporal"]) as paddock:
        show.line(f"Temporal {up['temporal']} · UI {up['ui']}")
        told: dict[str, Told] = {}
        for environment in CLOUDS:
            with show.step(f"a sandbox on {environment}, from no host to no host"):
                told[environment] = await asyncio.wait_for(visit(paddock, environment, show), ENVIRONMENT_S)
        calls = {name: _ask(observe, "/calls") for name, observe in up["emulated"].items()}
        for environment, one in told.items():
            judge(environment, one, _ask(up["emulated"][environment], "/held"), show)
        tables(told, calls, show)
    return told, calls


def main() -> int:
    sys.dont_write_bytecode = True
    directory = REPOSITORY / "build" / "demo-fleet"
    directory.mkdir(parents=True, exist_ok=True)
    report = directory / "report.json"
    report.unlink(missing_ok=True)
    show, allowed, places = Show(Console()), Allowed.usual(REPOSITORY), likely_places(REPOSITORY)

    def look() -> Snapshot:
        reap_orphans()
        return snapshot(places, tuple(Path(root) for root in allowed.roots))

    adopt_orphans()
    before = look()
    told: dict[str, Told] = {}
    calls: dict[str, dict[str, int]] = {}
    try:
        told, calls = asyncio.run(perform(directory, show))
    except (TimeoutError, RuntimeError, OSError, TemporalError, PaddockError) as wrong:  # also a workflow that failed
        show.check("the demo ran to its end", False, f"{type(wrong).__name__}: {wrong}")
    with show.step("the observer looks for leftovers"):
        remains = [str(trace) for trace in settle(before, look, allowed, root=os.getpid(), within_s=10)]
    show.check("nothing is left behind", not remains, "; ".join(remains)[:2000])
    environments = {name: one.as_report() for name, one in told.items()}
    report.write_text(json.dumps({"environments": environments, "api_calls": calls, "leftovers": remains}, indent=1))
    held = show.held and len(told) == len(CLOUDS)
    show.line(f"report: {report}")
    show.line("everything held" if held else "not everything held", "bold green" if held else "bold red")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
