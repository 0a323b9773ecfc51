"""The judge of the fault driver on a real system: a clean run passes, and each planted leak or loss is reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.client.connect import Paddock
from tests.faults.checks import Observer, Verdict, judge_chain, settle
from tests.faults.driver import run
from tests.faults.plan import Fault, Kind, Plan, Victim, Work
from tests.faults.system import Blow, System, fresh, outside
from tests.observer import adopt_orphans
from tests.observer.chains import read_chain
from tests.observer.processes import read_process
from tests.observer.reports import Ending, ending
from tests.observer.services import GROWTH, Descriptors, services
from tests.observer.test_chains import write
from tests.servers.upstream import Received

pytestmark = [pytest.mark.vm, pytest.mark.kill]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and cgroups")
CALM = Plan(0, (Work(Kind.TASK, 0.0),), ())
STRUCK = Plan(1, (Work(Kind.TASK, 0.0),), ())
TASK_PATHS = [f"/0/0/1/{i}" for i in range(0, 40, 5)]
WITHIN_S = 5.0


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Observer, Verdict]]:
    """A system on which one sandbox ran its task and ended."""
    adopt_orphans()
    directory = tmp_path_factory.mktemp("catches")
    with outside(directory) as (fence, bao):
        observer = Observer(directory / "state")
        system = fresh(directory / "state", fence, bao)
        try:
            yield system, observer, asyncio.run(run(system, observer, CALM))
            assert system.up.stop() == 0
        finally:
            system.end()


def sandbox(seen: tuple[System, Observer, Verdict]) -> Ending:
    found = asyncio.run(ending(seen[0].address, "sandbox/fault-0-0"))
    assert found
    return found


def leaks(seen: tuple[System, Observer, Verdict], *blows: Blow) -> list[str]:
    """What the judge reports as leaked now."""
    system, observer, _ = seen
    verdict = Verdict(CALM, list(blows), [])
    asyncio.run(settle(system, observer, verdict, frozenset({sandbox(seen).sandbox}), within_s=0.3))
    return verdict.leaked


def test_a_run_without_a_fault_passes(seen: tuple[System, Observer, Verdict]) -> None:
    verdict = seen[2]
    assert verdict.passed, (verdict.wrong, verdict.leaked, verdict.lost)
    assert verdict.outcomes == ["succeeded"]
    assert leaks(seen) == []


@contextlib.contextmanager
def stray_process(system: System, name: str) -> Iterator[None]:
    place = system.state / "host" / "run" / name
    place.mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=place) as child:
        try:
            place.rmdir()
            yield
        finally:
            child.kill()


@contextlib.contextmanager
def mount(system: System, name: str) -> Iterator[None]:
    place = system.state / "host" / "output" / name
    subprocess.run(["mount", "-t", "tmpfs", "leak", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def listening_socket(system: System, name: str) -> Iterator[None]:
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True)"
    argv = [sys.executable, "-c", f"{script}; sys.stdin.read()", f"{name}.sock"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=system.state) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == b"\n"
        try:
            yield
        finally:
            child.stdin.close()
            child.wait(10)
            (system.state / f"{name}.sock").unlink()


@contextlib.contextmanager
def cgroup(system: System, name: str) -> Iterator[None]:
    made = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[words.index("-") + 1] in ("cgroup", "cgroup2"):
            group = Path(words[4]) / f"local-local-1-{name}"
            with contextlib.suppress(OSError):  # a hierarchy mounted read-only, or one whose groups others made
                group.mkdir()
                made.append(group)
    assert made
    try:
        yield
    finally:
        for group in made:
            group.rmdir()


@contextlib.contextmanager
def slot(system: System, name: str) -> Iterator[None]:
    file = system.state / "host" / "worker" / "slots.json"
    before = file.read_bytes()
    table = json.loads(before)
    table["held"][name] = {"sandbox_id": name, "workflow_id": "w", "confirmed": True, "expires_at": 0}
    file.write_text(json.dumps(table))
    try:
        yield
    finally:
        file.write_bytes(before)


@contextlib.contextmanager
def store_token(system: System, name: str) -> Iterator[None]:
    made = system.bao.root.auth.token.create(display_name=name, ttl="60s")["auth"]["accessor"]
    try:
        yield
    finally:
        system.bao.root.auth.token.revoke_accessor(made)


@contextlib.contextmanager
def run_directory(system: System, name: str) -> Iterator[None]:
    place = system.state / "host" / "run" / name
    place.mkdir()
    try:
        yield
    finally:
        place.rmdir()


PLANTS: dict[str, tuple[str, Callable[[System, str], contextlib.AbstractContextManager[None]]]] = {
    "stray process": ("process", stray_process),
    "listening socket": ("socket", listening_socket),
    "slot": ("slot", slot),
    "store token": ("lease", store_token),
    "run directory": ("run directory", run_directory),
}
BY_ROOT = {"mount": ("mount", mount), "cgroup": ("cgroup", cgroup)}


def caught(kind: str, plant: object, seen: tuple[System, Observer, Verdict]) -> None:
    assert leaks(seen) == []
    with plant(seen[0], sandbox(seen).sandbox):  # type: ignore[operator]
        assert any(words.startswith(f"{kind}: ") for words in leaks(seen)), leaks(seen)
    assert leaks(seen) == []


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_a_planted_leak_is_reported(name: str, seen: tuple[System, Observer, Verdict]) -> None:
    caught(*PLANTS[name], seen)


@ROOT_ONLY
@pytest.mark.parametrize("name", sorted(BY_ROOT))
def test_a_leak_that_only_root_can_plant_is_reported(name: str, seen: tuple[System, Observer, Verdict]) -> None:
    caught(*BY_ROOT[name], seen)


def test_a_token_that_a_killed_broker_never_wrote_down_is_the_documented_limit(
    seen: tuple[System, Observer, Verdict],
) -> None:
    with store_token(seen[0], sandbox(seen).sandbox):
        assert leaks(seen, Blow(Fault(0.0, Victim.BROKER), pid=1)) == []
        assert leaks(seen, Blow(Fault(0.0, Victim.RELAY), pid=1)) != []


# The audit


def sealed(seen: tuple[System, Observer, Verdict]) -> Path:
    return seen[0].state / "host" / "audit" / "sealed" / sandbox(seen).sandbox


def lost(seen: tuple[System, Observer, Verdict]) -> list[str]:
    """What the judge reports as lost of the sandbox that ran in peace."""
    verdict = Verdict(CALM, [], [])
    judge_chain(seen[0], verdict, sandbox(seen), TASK_PATHS, calm=True, tasks=1)
    return verdict.lost


def cut_out(lines: list[bytes]) -> list[bytes]:
    at = next(i for i, line in enumerate(lines) if b'"egress.intent"' in line)
    return lines[:at] + lines[at + 1 :]


def cut_short(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize("wound", [cut_out, cut_short, swapped])
def test_an_audit_line_that_is_cut_out_or_swapped_is_a_loss(
    wound: Callable[[list[bytes]], list[bytes]], seen: tuple[System, Observer, Verdict]
) -> None:
    file = sealed(seen) / "chain.ndjson"
    whole = file.read_bytes()
    assert lost(seen) == []
    try:
        file.write_bytes(b"".join(wound(whole.splitlines(keepends=True))))
        assert lost(seen)
    finally:
        file.write_bytes(whole)


@contextlib.contextmanager
def without_the_last(seen: tuple[System, Observer, Verdict], kind: str) -> Iterator[None]:
    """The chain without its last event of a kind, numbered, joined and summed up anew: nothing in it tells."""
    place = sealed(seen)
    events: list[dict[str, Any]] = read_chain(place)[0]
    events.remove(next(event for event in reversed(events) if event["kind"] == kind))
    events[-1]["detail"]["events"] = len(events)
    aside = place.rename(place.with_name("aside"))
    try:
        write(place, events)
        assert read_chain(place)[1] == []
        yield
    finally:
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        aside.rename(place)


@pytest.mark.parametrize("kind", ["policy.attached", "egress.intent", "secret.used", "egress.outcome", "task.exited"])
def test_an_event_that_a_chain_was_closed_over_is_a_loss_by_what_others_saw(
    kind: str, seen: tuple[System, Observer, Verdict]
) -> None:
    assert lost(seen) == []
    with without_the_last(seen, kind):
        assert len(lost(seen)) == 1, lost(seen)
    assert lost(seen) == []


class Watched(list[Received]):
    """An upstream's log of requests; `then` is called behind each that comes in, before it is answered."""

    def __init__(self, before: list[Received], then: Callable[[], None]) -> None:
        super().__init__(before)
        self._then = then

    def append(self, request: Received) -> None:
        super().append(request)
        self._then()


def until(pid: int, states: str) -> None:
    """Wait for a process to be in one of these states."""
    ends = time.monotonic() + WITHIN_S
    while (process := read_process(pid)) is not None and process.state not in states:
        assert time.monotonic() < ends, process


def cut_the_audit(system: System) -> str:
    """Kill the recorder and take the last line off its file, as a disk does that lied; the path that the line names.

    Empty, and nothing is done, where that line is not an acknowledged one, or where a checkpoint covers it already.
    """
    known = services(system.parent)
    keeper, recorder = known["keeper"][0].pid, known["recorder"][0].pid
    try:
        for pid in (keeper, recorder):
            os.kill(pid, signal.SIGSTOP)
            until(pid, "T")
        audit = system.state / "host" / "audit"
        file = max((audit / "spool").glob("*.ndjson"))
        whole = file.read_bytes()
        line = whole.splitlines(keepends=True)[-1]
        event = json.loads(line)
        checkpoint = audit / "checkpoints" / event["sandbox"]
        covered = int(checkpoint.read_text().split("\n")[1]) if checkpoint.exists() else 0
        if event["kind"] != "secret.used" or event["seq"] <= covered:
            return ""
        os.kill(recorder, signal.SIGKILL)
        until(recorder, "ZX")
        os.truncate(file, len(whole) - len(line))
        return str(event["detail"]["path"])
    finally:
        for pid in (recorder, keeper):
            os.kill(pid, signal.SIGCONT)


def test_an_acknowledged_event_that_the_disk_forgot_is_a_loss_though_paddock_calls_the_chain_whole(
    seen: tuple[System, Observer, Verdict],
) -> None:
    system, observer, _ = seen
    cut = list[str]()

    def strike() -> None:
        if not cut and (path := cut_the_audit(system)):
            cut.append(path)

    system.fence.api.requests = Watched(system.fence.api.requests, strike)
    try:
        verdict = asyncio.run(run(system, observer, STRUCK))
    finally:
        system.fence.api.requests = list(system.fence.api.requests)
    found = asyncio.run(ending(system.address, "sandbox/fault-1-0"))
    assert found
    assert cut
    assert (verdict.outcomes, verdict.wrong, verdict.leaked) == (["succeeded"], [], [])
    assert found.report["audit"]["verified"] is True
    assert verdict.lost == [f"{found.sandbox}: {cut[0]} was answered and is not in the chain"]


def test_a_request_that_no_chain_knows_is_a_loss(seen: tuple[System, Observer, Verdict]) -> None:
    verdict = Verdict(CALM, [], [])
    judge_chain(seen[0], verdict, sandbox(seen), ["/0/0/1/0", "/0/0/1/999"], calm=True)
    assert verdict.lost == [f"{sandbox(seen).sandbox}: /0/0/1/999 was answered and is not in the chain"]


# Descriptors

FORGETFUL = """import os, sys
if "paddock.host" in sys.orig_argv:
    opened = os.pidfd_open
    def pidfd_open(pid, flags=0):
        descriptor = opened(pid, flags)
        os.dup(descriptor)  # nobody closes this one
        return descriptor
    os.pidfd_open = pidfd_open
"""


async def use(address: str, sandboxes: int) -> None:
    """Sandboxes that run a program and end, all at once."""
    async with Paddock.connect(address) as paddock:

        async def one() -> None:
            box = await paddock.start(task={"argv": ["true"]})
            assert (await box.result()).outcome == "succeeded"
            await box.close()

        await asyncio.gather(*(one() for _ in range(sandboxes)))


def test_a_keeper_that_forgets_to_close_pidfds_is_reported(
    seen: tuple[System, Observer, Verdict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(FORGETFUL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "planted"))
    observer = Observer(tmp_path / "state")
    observer.descriptors = Descriptors(started_s=0.0)
    system = fresh(tmp_path / "state", seen[0].fence, seen[0].bao)
    try:
        assert observer.grown(system.parent) == []
        asyncio.run(use(system.address, 5))
        verdict = Verdict(CALM, [], [])
        asyncio.run(settle(system, observer, verdict, frozenset(), within_s=1.0))
        assert system.up.stop() == 0
    finally:
        system.end()
    # On a busy machine the last of the sandboxes may still be going.
    growth, dead = [words for words in verdict.leaked if words.startswith("descriptors: keeper")]
    assert re.fullmatch(r"descriptors: keeper: python\S*: \d+ open descriptors, \d+ before", growth)
    held = re.fullmatch(r"descriptors: keeper: python\S*: (\d+) pidfds of processes that are gone", dead)
    assert held
    assert int(held[1]) > GROWTH
