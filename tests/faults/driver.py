"""Runs plans against one system, judges each, and begins with a fresh state after one that failed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from temporalio.client import Client

from paddock.client.connect import Paddock
from tests.e2e.fence import Servers
from tests.faults.checks import Observer, Verdict, judge
from tests.faults.guests import Played, Players
from tests.faults.plan import Fault, Plan, plan
from tests.faults.system import Blow, System, fresh, outside
from tests.observer import adopt_orphans
from tests.observer.history import histories
from tests.secrets.rig import Bao

LONGEST_S = 240.0


@contextlib.contextmanager
def driving(logs: Path) -> Iterator[Driver]:
    """A driver whose system is ended with the block; raises AssertionError when that end is not a clean one."""
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="paddock-faults-"))
    try:
        with outside(directory) as (fence, bao):
            driver = Driver(directory, fence, bao, logs)
            try:
                yield driver
                driver.finish()
            finally:
                driver.drop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Driver:
    """`run(number)` does that run and answers what it showed; `verdicts` has them all."""

    def __init__(self, directory: Path, fence: Servers, bao: Bao, logs: Path) -> None:
        self._directory, self._fence, self._bao, self._logs = directory, fence, bao, logs
        self._now: tuple[System, Observer] | None = None
        self._states = 0
        self.verdicts: list[Verdict] = []

    def run(self, number: int) -> Verdict:
        """One run; after a failed one, whose state may hold what leaked, the next begins with a state of its own."""
        system, observer = self._now or self._begin()
        verdict = asyncio.run(run(system, observer, plan(number)))
        self.verdicts.append(verdict)
        if not verdict.passed:
            verdict.logs = str(_keep(system, verdict, self._logs))
            self.drop()
        return verdict

    def finish(self) -> None:
        """End the system as its user would, and see that it leaves nothing."""
        if self._now is None:
            return
        system, observer = self._now
        code = system.up.stop()
        remains = [str(one) for one in observer.leftovers(0, frozenset())]
        assert (code, remains) == (0, []), f"after the last run `paddock up` ended with {code} and left {remains}"

    def drop(self) -> None:
        """End what runs by force."""
        if self._now:
            self._now[0].end()
            self._now = None

    def _begin(self) -> tuple[System, Observer]:
        state = self._directory / f"state-{self._states}"
        self._states += 1
        observer = Observer(state)
        self._now = fresh(state, self._fence, self._bao), observer
        return self._now


async def run(system: System, observer: Observer, todo: Plan) -> Verdict:
    """One plan on a running system, judged."""
    system.hurt.clear()
    begin = time.monotonic()
    verdict = Verdict(todo, [], [])
    calm = asyncio.Event()
    plain = await Client.connect(system.address)
    async with Paddock.connect(system.address) as paddock:
        players = Players(paddock, plain, todo.number, calm)
        playing = [asyncio.ensure_future(players.play(i, work, begin)) for i, work in enumerate(todo.works)]
        try:
            async with asyncio.timeout(LONGEST_S):
                verdict.blows = await _strike_all(system, todo, begin, playing, players)
                calm.set()
                verdict.played = list(await asyncio.gather(*playing))
        except TimeoutError:
            verdict.wrong.append(f"not over after {LONGEST_S:.0f} s")
            for task in playing:
                task.cancel()
            await asyncio.gather(*playing, return_exceptions=True)
    if verdict.played:
        await judge(system, observer, verdict)
    verdict.seconds = time.monotonic() - begin
    return verdict


async def _strike_all(
    system: System, todo: Plan, begin: float, playing: list[asyncio.Task[Played]], players: Players
) -> list[Blow]:
    async def strike(fault: Fault) -> Blow:
        await players.moment(todo, fault.at_s, begin)
        return await system.strike(fault, begin, players.workflow(fault.sandbox), playing[fault.sandbox])

    return list(await asyncio.gather(*map(strike, todo.faults)))


def _keep(system: System, verdict: Verdict, logs: Path) -> Path:
    kept = system.keep_logs(verdict.plan, logs)
    with contextlib.suppress(Exception):  # the server may be what is wrong
        for name, text in asyncio.run(asyncio.wait_for(histories(system.address), 20)):
            if f"fault-{verdict.plan.number}-" in name and name.startswith("history"):
                (kept / f"{name.replace('/', '_').replace(' ', '_')}.json").write_bytes(text)
    lines = [str(verdict.plan), *map(str, verdict.blows), *map(str, verdict.played)]
    (kept / "run.txt").write_text("\n".join([*lines, *verdict.wrong, *verdict.leaked, *verdict.lost]) + "\n")
    return kept


def logs_here() -> Path:
    """Where logs of failed runs are kept unless somebody says otherwise."""
    return Path(os.environ.get("PADDOCK_FAULT_LOGS") or Path("build") / "faults")
