"""The two sandboxes of the demo: the agent's, behind the fence; and one without any network that judges its work."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from examples.demo.servers import Servers
from examples.demo.settings import AGENT, PROJECT, PROMPT, REFUSED, Settings
from examples.demo.show import Show
from examples.demo.stage import Stage
from examples.demo.watch import Observer, Watched
from paddock.client import Paddock, Run, Sandbox
from paddock.contracts.report import Gone, Outcome, SandboxReport
from paddock.contracts.spec import OutputGlob, TaskSpec
from tests.observer.decoys import GUEST
from tests.observer.history import histories

SCRIPT = 'python3 -c "$0" "$1" /tmp/decoy && exec python3 /work/agent/agent.py "$2"'
SUITE = ["python3", "-m", "unittest"]


@dataclass(frozen=True, slots=True)
class Told:
    """How it went."""

    agent: SandboxReport
    judge: SandboxReport
    watched: Watched | None
    said: str


async def tell(paddock: Paddock, settings: Settings, servers: Servers, stage: Stage, show: Show) -> Told:
    """Both sandboxes, one after the other; what they promise is checked as it happens."""
    report, watched, said, repaired = await _repair(paddock, settings, servers, stage, show)
    judge = await _judge(paddock, settings, repaired, show)
    return Told(report, judge, watched, said)


async def _repair(
    paddock: Paddock, settings: Settings, servers: Servers, stage: Stage, show: Show
) -> tuple[SandboxReport, Watched | None, str, Path]:
    task = TaskSpec(
        argv=("/bin/sh", "-c", SCRIPT, GUEST, settings.seed, PROMPT),
        env={
            **settings.model.agent_environment(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DEMO_DECOY": settings.env_decoy,
        },
        cwd="/work/repair",
        timeout_s=600,
    )
    with show.step("sandbox placed, inputs sent"):
        box = await paddock.start(
            policy="demo",
            task=task,
            inputs={"agent/agent.py": AGENT, "repair": _project(settings)},
            outputs=(OutputGlob(glob="repair/ledger/*.py"),),
            lifetime_s=900,
        )
    show.line(f"sandbox {box.sandbox_id} on host {box.host}, policy demo; the agent begins", "bold")
    try:
        looking = asyncio.ensure_future(_look(settings, servers, stage, show))
        with show.step("agent at work"):
            said = await _follow(box.task(1), show)
        servers.moment.over()
        watched = await looking if servers.moment.reached.is_set() else None
        looking.cancel()
        with show.step("sandbox ended, receipts in"):
            report = await box.result()
        repaired = settings.directory / "repaired"
        shutil.rmtree(repaired, ignore_errors=True)
        repaired.mkdir(parents=True)
        with show.step("outputs fetched by digest"):
            await box.download(report.outputs, repaired)
    finally:
        servers.moment.over()
        await _let_go(box)
    _check_repair(report, said, settings, servers, show)
    return report, watched, said, repaired / "repair" / "ledger"


async def _follow(run: Run, show: Show) -> str:
    lines = []
    async for line in run.output():
        lines.append(line)
        show.output(line)
    return "\n".join(lines)


async def _look(settings: Settings, servers: Servers, stage: Stage, show: Show) -> Watched:
    """Wait for the moment, then let the observer look at the living guest."""
    await servers.moment.reached.wait()
    try:
        show.line("the credential is used; the observer reads the guest's live memory, files, histories", "bold")
        seen = [repr(request.conversation).encode() for request in servers.model.seen]
        observer = Observer(settings, [("what the model was told", b"\n".join(seen))])
        observer.texts += await histories(stage.temporal)
        with show.step("the observer's look, the agent waiting"):
            return await asyncio.to_thread(observer.look)
    finally:
        servers.moment.over()


def _check_repair(report: SandboxReport, said: str, settings: Settings, servers: Servers, show: Show) -> None:
    exit_code = report.task.exit if report.task else None
    show.check("the agent finished", report.outcome is Outcome.SUCCEEDED, f"{report.outcome}, exit {exit_code}")
    received = servers.tokens_received()
    exact = bool(received) and set(received) == {settings.ticket_token}
    show.check("the ticket server got the exact credential", exact, f"{len(received)} request(s)")
    if settings.model.scripted:
        show.check("the model got its key, which the agent never had", bool(servers.model.seen))
    show.check("the agent saw the ticket", "answered 200" in said or not settings.model.scripted)
    show.check("the refused host got no connection", servers.refused.connections == 0, REFUSED)
    denied = [f"{denial.host} ×{denial.count}" for denial in report.denied]
    show.check("the refusal is on record", any(d.host.startswith(REFUSED) for d in report.denied), ", ".join(denied))
    _check_end(report, show)


def _check_end(report: SandboxReport, show: Show) -> None:
    proved = [receipt for receipt in report.receipts if receipt.gone is Gone.PROVED]
    everything = bool(proved) and len(proved) == len(report.receipts)
    show.check("every resource is proved gone", everything, f"{len(proved)} of {len(report.receipts)} receipts")
    show.check("the audit is sealed and verified", report.audit.verified, f"{report.audit.events} events")


async def _judge(paddock: Paddock, settings: Settings, repaired: Path, show: Show) -> SandboxReport:
    """The suite, afresh, in a sandbox that may reach nothing: tests from examples/, package as it was and as it is."""
    show.line("a second sandbox, which may reach nothing, runs the suite afresh", "bold")
    tests = _project(settings) / "tests"
    before = {"before/ledger": _project(settings) / "ledger", "before/tests": tests}
    after = {"after/ledger": repaired, "after/tests": tests}
    async with paddock.sandbox(lifetime_s=600) as box:
        with show.step("suite before the repair"):
            run = await box.run(SUITE, inputs=before, cwd="/work/before", timeout_s=120)
            first = await run.result()
        show.check("the suite fails before", first.exit == 1, f"exit {first.exit}")
        with show.step("suite after the repair"):
            run = await box.run(SUITE, inputs=after, cwd="/work/after", timeout_s=120)
            words = [line async for line in run.output()]
            second = await run.result()
        ran = next((line for line in words if line.startswith("Ran ")), "")
        show.check(
            "the suite passes after", second.exit == 0 and ran.startswith("Ran 10 tests"), ran or str(words[-1:])
        )
    if box.report is None:
        raise RuntimeError("the second sandbox ended without a report")
    _check_end(box.report, show)
    return box.report


def _project(settings: Settings) -> Path:
    """The project as it stands in examples/, without byte code of this machine."""
    copy = settings.directory / "project"
    if not copy.exists():
        shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


async def _let_go(box: Sandbox) -> None:
    """End a sandbox that did not end by itself, and close its streams."""
    if box.report is None:
        try:
            await asyncio.wait_for(box.stop("the demo was interrupted"), 60)
        except (TimeoutError, Exception):  # `paddock up` ends what runs, and the observer sees what remains
            pass
    await box.close()
