"""What must hold after a run, by the observer's word about the machine and by what the callers saw."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.fence import SECRET
from tests.faults.guests import Played, expected
from tests.faults.handles import dead_handles
from tests.faults.plan import Kind, Plan, Victim
from tests.faults.system import Blow, System
from tests.observer import Allowed, Trace, leftovers, snapshot
from tests.observer.chains import dropped, read_chain, unfinished, unrecorded
from tests.observer.hoststate import kept, recorded_accessors, tokens
from tests.observer.reports import Ending, ending, unproved
from tests.observer.services import Descriptors, services

LOST_WITHIN_S = 5.0
SETTLES_S = 15.0
RIGHTLY = {
    Kind.TASK: "succeeded",
    Kind.SESSION: "stopped",
    Kind.STOPPED: "stopped",
    Kind.CANCELLED: "cancelled",
    Kind.LEASE: "lease-ended",
}
# A supervisor or a VMM that is killed while it comes up fails the boot or the fence, later it is lost.
OF_THE_KILLED = frozenset({"sandbox-lost", "boot-failed", "fence-failed"})
BEFORE_A_REQUEST = frozenset({"audit.opened", "sandbox.booted", "policy.attached", "sandbox.ready"})
MAY_DROP_A_TOKEN = frozenset({Victim.BROKER, Victim.KEEPER, Victim.UP})
# A buffered event is lost with whoever has it in memory; it is owed where all of these were left alone.
MAY_DROP_A_NOTE = frozenset({Victim.RECORDER, Victim.KEEPER, Victim.UP})


@dataclass
class Verdict:
    """What a run showed; no `wrong` and nothing `leaked` or `lost` is a pass."""

    plan: Plan
    blows: list[Blow]
    played: list[Played]
    seconds: float = 0.0
    settled_s: float = 0.0
    outcomes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gone_after_s: dict[Victim, float] = field(default_factory=dict)
    dropped: int = 0
    refusals: int = 0
    unwritten_tokens: int = 0
    logs: str = ""

    @property
    def passed(self) -> bool:
        return not (self.wrong or self.leaked or self.lost)


class Observer:
    """The machine before anything was started, and what is there of ours now."""

    def __init__(self, state: Path) -> None:
        self.state, self.before = state, snapshot(())
        self.descriptors = Descriptors()

    def leftovers(self, up: int, ours: frozenset[str]) -> list[Trace]:
        """Everything of ours that is neither from before nor one of the parts that a resting system consists of."""
        now = snapshot(())
        parts = services(up, now.processes)
        resting = {found[0].pid for found in parts.values()}
        fresh = [one for one in leftovers(self.before, now, Allowed(), root=os.getpid()) if self._ours(one, ours)]
        return [one for one in fresh if not one.owners or not set(one.owners) <= resting] + kept(self.state)

    def missing(self, up: int) -> list[str]:
        """Parts that a resting system has and this one does not."""
        return sorted({victim.value for victim in Victim} - {"supervisor", "vmm"} - set(services(up)))

    def grown(self, up: int) -> list[str]:
        """Long-lived processes that keep more and more descriptors open, or a pidfd of a process that is gone."""
        found = list[str]()
        for part, running in services(up).items():
            found += [f"{part}: {words}" for words in self.descriptors.grown(running) + dead_handles(running)]
        return found

    def _ours(self, one: Trace, ours: frozenset[str]) -> bool:
        # An empty group and a mount have no owner, and others may be at work on this machine.
        return bool(one.owners) or str(self.state) in one.what or any(name in one.what for name in ours)


def reap() -> None:
    """Reap orphans that became ours when their keeper died; children that somebody waits for are still running."""
    for process in dead_orphans():
        try:
            os.waitpid(process, os.WNOHANG)
        except ChildProcessError:
            continue


def dead_orphans() -> list[int]:
    """Dead children of ours that were supervisors: nobody else waits for them."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                head, _, rest = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")
            except OSError:
                continue
            state, parent = rest.split()[:2]
            if state == "Z" and int(parent) == os.getpid() and ("(pd-" in head or "(qemu" in head):
                found.append(int(name))
    return found


async def judge(system: System, observer: Observer, verdict: Verdict) -> None:
    """Fill in everything that a run showed."""
    requested, bare = seen_upstream(system, verdict.plan.number)
    verdict.wrong += [f"{path} went out without its credential" for path in bare]
    for blow in verdict.blows:
        if blow.wrong:
            verdict.wrong.append(str(blow))
    sandboxes = set[str]()
    noted = not any(blow.pid and blow.fault.victim in MAY_DROP_A_NOTE for blow in verdict.blows)
    for index, played in enumerate(verdict.played):
        found = await ending(system.address, played.workflow)
        sandboxes.add(found.sandbox if found else played.sandbox)
        verdict.outcomes.append(found.outcome if found else "never started")
        words = judge_one(verdict, played, found, system.hurt.get(index))
        verdict.wrong += [f"sandbox {index}: {said}" for said in words]
        if found and found.sandbox:
            calm = index not in system.hurt and played.work.kind in (Kind.TASK, Kind.SESSION)
            tasks = sum(ran.exit is not None for ran in played.tasks) if calm and noted else 0
            judge_chain(system, verdict, found, requested.get(index, []), calm=calm, tasks=tasks)
        elif requested.get(index):
            verdict.lost.append(f"sandbox {index}: {len(requested[index])} requests, and no report")
    await settle(system, observer, verdict, frozenset(sandboxes - {""}))


def judge_one(verdict: Verdict, played: Played, found: Ending | None, hurt_at: float | None) -> list[str]:
    """Whether one sandbox ended as it had to, and its tasks too."""
    if found is None:
        return [f"its workflow was never started: {played.wrong}"]
    if found.state == "RUNNING":
        return [f"its workflow still runs: {played}"]
    words, kind = [], str((found.report.get("error") or {}).get("kind", ""))
    right = RIGHTLY[played.work.kind]
    if hurt_at is not None and found.outcome != right:
        if kind not in OF_THE_KILLED:
            words.append(f"it was killed and ended {found.outcome} ({kind}): {found.report.get('reason')}")
        sole, took = verdict.plan.alone, played.ended_at - hurt_at
        for blow in verdict.blows:
            if blow.fault.victim in (Victim.SUPERVISOR, Victim.VMM) and blow.fault.how == "kill":
                verdict.gone_after_s[blow.fault.victim] = max(took, verdict.gone_after_s.get(blow.fault.victim, 0.0))
        if sole and took > LOST_WITHIN_S:
            words.append(f"its caller had the report only {took:.1f} s after the kill")
    elif found.outcome != right:
        words.append(f"it ended {found.outcome}, not {right}: {found.report.get('reason')} {played}")
    elif played.wrong and played.work.kind is not Kind.LEASE:
        words.append(f"its caller was told something else: {played}")
    for ran in played.tasks:
        verdict.refusals += ran.errors.count(b"refused")
        cut = hurt_at is not None or played.work.kind is Kind.LEASE
        if not ran.whole and not (cut and expected(ran.lines).startswith(ran.output)):
            words.append(f"a task was not whole: {played} {ran.output[-120:]!r} {ran.errors[-600:]!r}")
    return words


def judge_chain(
    system: System, verdict: Verdict, found: Ending, paths: list[str], *, calm: bool, tasks: int = 0
) -> None:
    """Receipts and audit chain of one sandbox that ended; a `calm` end cut no request off.

    `tasks`: how many its caller saw end, while nobody who passes the word on was struck.
    """
    directory = system.state / "host" / "audit" / "sealed" / found.sandbox
    booted = directory.exists() or (system.state / "host" / "output" / found.sandbox).exists()
    events, faults = read_chain(directory) if booted or paths else ([], [])
    fenced = any(event["kind"] == "policy.attached" for event in events)
    unsaid = unproved(found, booted=booted, fenced=fenced, cgroups=os.geteuid() == 0)
    verdict.wrong += [f"{found.sandbox}: {words}" for words in unsaid]
    absent = [f"{path} was answered and is not in the chain" for path in unrecorded(events, paths)]
    kinds = {event["kind"] for event in events}
    absent += [f"it made requests and its chain has no {kind}" for kind in sorted(BEFORE_A_REQUEST - kinds) if paths]
    exited = {event["detail"]["task"] for event in events if event["kind"] == "task.exited"}
    absent += [f"task {number} ended and is not in the chain" for number in range(1, tasks + 1) if number not in exited]
    verdict.lost += faults + [f"{found.sandbox}: {words}" for words in absent]
    if calm and (open_ := unfinished(events)) > dropped(events):
        verdict.lost.append(f"{found.sandbox}: {open_} requests without outcome, {dropped(events)} said to be dropped")
    verdict.dropped += dropped(events)


def seen_upstream(system: System, number: int) -> tuple[dict[int, list[str]], list[str]]:
    """Paths that the upstream server answered for this run, by sandbox; and those that came without the secret."""
    found: dict[int, list[str]] = {}
    bare = []
    for request in list(system.fence.api.requests):
        parts = request.path.split("/")
        if parts[1] == str(number):
            found.setdefault(int(parts[2]), []).append(request.path)
            if request.secret != SECRET:
                bare.append(request.path)
    return found, bare


async def settle(
    system: System, observer: Observer, verdict: Verdict, sandboxes: frozenset[str], within_s: float = SETTLES_S
) -> None:
    """Look until nothing is left over, or until it is clear that something stays."""
    began = time.monotonic()
    hit = any(blow.pid and blow.fault.victim in MAY_DROP_A_TOKEN for blow in verdict.blows)
    while True:
        reap()
        left = observer.leftovers(system.parent, sandboxes)
        missing, grown = observer.missing(system.parent), observer.grown(system.parent)
        out = [one for one in await asyncio.to_thread(tokens, system.bao.address, "root") if one.id in sandboxes]
        # The limit that docs/limits.md names: a token that a killed broker did not write down ends by its time to live.
        unwritten = [one for one in out if hit and one.what.split()[2] not in recorded_accessors(system.state)]
        left += [one for one in out if one not in unwritten]
        verdict.unwritten_tokens, verdict.settled_s = len(unwritten), time.monotonic() - began
        if not (left or missing or grown) or verdict.settled_s > within_s:
            break
        await asyncio.sleep(0.1)
    verdict.leaked += [str(one) for one in left] + [f"descriptors: {words}" for words in grown]
    verdict.wrong += [f"the {part} does not run" for part in missing]


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a report holds it."""
    return {
        "run": verdict.plan.number,
        "passed": verdict.passed,
        "seconds": round(verdict.seconds, 2),
        "settled_s": round(verdict.settled_s, 2),
        "sandboxes": [str(work.kind) for work in verdict.plan.works],
        "outcomes": verdict.outcomes,
        "faults": [str(blow) for blow in verdict.blows],
        "wrong": verdict.wrong,
        "leaked": verdict.leaked,
        "lost": verdict.lost,
        "logs": verdict.logs,
    }
