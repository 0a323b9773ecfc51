"""`make demo`: exit code 0 only when everything that the demo promises held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.demo.servers import Servers, servers
from examples.demo.settings import MODEL_KEY, POLICY, REPOSITORY, TICKET_TOKEN, Settings
from examples.demo.show import Show
from examples.demo.stage import Stage, StageFailed, command, stage
from examples.demo.story import Told, tell
from paddock.client import Paddock
from paddock.contracts.errors import PaddockError
from paddock.embedded.state import State
from paddock.secrets.embedded import EmbeddedStore, load_or_make_store_key
from tests.observer import Allowed, Snapshot, adopt_orphans, reap_orphans, settle, snapshot
from tests.observer.snapshot import likely_places

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


class Interrupts:
    """Ctrl-C and SIGTERM: the first ends the run (or the keeping), later ones don't keep anything from being ended."""

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s, self.happened = limit_s, False
        self._keeping: asyncio.Event | None = None

    async def run(self, work: Coroutine[Any, Any, Told]) -> Told:
        """The work's answer; raises CancelledError when it was interrupted, TimeoutError when it took too long."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def hit() -> None:
            if self._keeping is not None:
                self._keeping.set()
            elif not self.happened:
                self.happened = True
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, hit)
        return await asyncio.wait_for(task, self.limit_s)

    async def kept(self) -> None:
        """Wait for Ctrl-C."""
        self._keeping = asyncio.Event()
        await self._keeping.wait()


async def perform(settings: Settings, show: Show, interrupts: Interrupts) -> Told:
    """Everything between the two looks of the observer."""
    shutil.rmtree(settings.directory / "project", ignore_errors=True)
    async with servers(settings, settings.directory / "servers") as local, _stage(settings, local, show) as up:
        async with Paddock.connect(up.temporal) as paddock:
            await _prepare(settings, show, paddock)
            told = await tell(paddock, settings, local, up, show)
        await _judge_audit(told, settings, show)
        _observed(told, show)
        _tables(told, settings, up, show)
        _write(settings, told, show, None)
        if settings.keep:
            show.line(f"KEEP=1: still running; the Temporal UI is at {up.ui}. Ctrl-C ends it.", "bold")
            await interrupts.kept()
    return told


@contextlib.asynccontextmanager
async def _stage(settings: Settings, local: Servers, show: Show) -> AsyncIterator[Stage]:
    """The stage, its rise and its fall shown and timed."""
    async with contextlib.AsyncExitStack() as closing:
        with show.step("paddock up"):
            up = await closing.enter_async_context(stage(settings, local))
        show.line(f"Temporal {up.temporal} · UI {up.ui}")
        try:
            yield up
        finally:
            with show.step("paddock up taken down"):
                await closing.aclose()


async def _prepare(settings: Settings, show: Show, paddock: Paddock) -> None:
    """What `paddock policy apply` and `paddock secret set` do, by the libraries that they call."""
    policy = settings.directory / "policy.yaml"
    policy.write_text(settings.model.policy())
    shown = POLICY if policy.read_text() == POLICY.read_text() else policy
    state = State(settings.state)
    with show.step("policy and secrets in place"):
        store = EmbeddedStore(state.secrets_file, load_or_make_store_key(state.secrets_key))
        store.put(MODEL_KEY, settings.model.key.encode())
        store.put(TICKET_TOKEN, settings.ticket_token.encode())
        await paddock.apply_policy(policy.read_text(), str(shown.relative_to(REPOSITORY)))
    show.line(f"model: {'scripted' if settings.model.scripted else settings.model.host} ({settings.model.dialect})")


async def _judge_audit(told: Told, settings: Settings, show: Show) -> None:
    for report in (told.agent, told.judge):
        try:
            words = (await command("audit", "verify", report.sandbox_id, settings=settings)).strip()
            show.check("`paddock audit verify` says whole", True, words.splitlines()[-1] if words else "")
        except StageFailed as error:
            show.check("`paddock audit verify` says whole", False, str(error))


def _observed(told: Told, show: Show) -> None:
    watched = told.watched
    if watched is None:
        show.check("the observer saw the living guest", False, "the agent never came to that point")
        return
    detail = f"{len(watched.monitors)} VM(s), {watched.megabytes:.0f} MB read"
    show.check("the observer saw the living guest", bool(watched.monitors), detail)
    found = [str(finding) for scan in (watched.token, watched.key) for finding in scan.found]
    unread = [*watched.token.unread, *watched.key.unread]
    show.check("no secret is in the guest or near it", not found and not unread, "; ".join([*found, *unread])[:400])
    for place, seen in watched.decoys_found().items():
        show.check("a decoy there is found by the same scan", seen, place)


def _tables(told: Told, settings: Settings, up: Stage, show: Show) -> None:
    chain = settings.state / "host" / "audit" / "sealed" / told.agent.sandbox_id / "chain.ndjson"
    show.console.print()
    if chain.exists():
        show.timeline(chain)
    show.receipts(told.agent)
    show.receipts(told.judge)
    show.times(told.agent)
    show.console.print(f"Temporal UI: {up.ui}\n")


def _write(settings: Settings, told: Told | None, show: Show, remains: list[str] | None) -> None:
    """The report: SandboxReport's fields, and beside them what the observer saw; null where it did not look."""
    report: dict[str, Any] = told.agent.model_dump(mode="json") if told else {}
    watched = told.watched if told else None
    report["secret_seen_in_guest"] = watched.seen_in_guest if watched else None
    report["leftovers"] = remains
    report["demo"] = {
        "held": show.held and not remains,
        "checks": [{"name": c.name, "held": c.held, "detail": c.detail} for c in show.checks],
        "steps_s": show.steps_s,
        "decoys_found": watched.decoys_found() if watched else {},
        "judge": told.judge.model_dump(mode="json") if told else None,
        "model": "scripted" if settings.model.scripted else settings.model.host,
    }
    settings.report.write_text(json.dumps(report, indent=1) + "\n")


def _run(settings: Settings, show: Show) -> tuple[Told | None, int]:
    interrupts = Interrupts(None if settings.keep else settings.limit_s)
    try:
        return asyncio.run(interrupts.run(perform(settings, show, interrupts))), 0
    except asyncio.CancelledError:
        show.line("interrupted; taken down", "yellow")
        return None, INTERRUPTED
    except TimeoutError:
        show.line(f"not done after {settings.limit_s:.0f} s (DEMO_LIMIT_S)", "red")
    except (PaddockError, StageFailed) as error:
        show.line(str(error), "red")
    return None, FAILED


def main() -> int:
    sys.dont_write_bytecode = True
    try:
        settings = Settings.read(os.environ)
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        return WRONG_USE
    settings.directory.mkdir(parents=True, exist_ok=True)
    settings.report.unlink(missing_ok=True)
    show, allowed = Show(Console()), Allowed.usual(REPOSITORY)
    places = likely_places(REPOSITORY)

    def look() -> Snapshot:
        reap_orphans()
        return snapshot(places, tuple(Path(root) for root in allowed.roots))

    adopt_orphans()
    before = look()
    told, code = _run(settings, show)
    with show.step("the observer looks for leftovers"):
        remains = [str(trace) for trace in settle(before, look, allowed, root=os.getpid(), within_s=10)]
    show.check("nothing is left behind", not remains, "; ".join(remains)[:2000])
    _write(settings, told, show, remains)
    held = code == 0 and told is not None and show.held
    show.line(f"report: {settings.report}")
    show.line("everything held" if held else "not everything held", "bold green" if held else "bold red")
    return code or (0 if held else FAILED)


if __name__ == "__main__":
    sys.exit(main())
