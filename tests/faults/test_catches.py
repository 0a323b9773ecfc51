"""The judge of the fault driver on a real system: a clean run passes, and each planted leak or loss is reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.checks import Observer, Verdict, judge_chain, settle
from tests.faults.driver import run
from tests.faults.plan import Fault, Kind, Plan, Victim, Work
from tests.faults.system import Blow, System, fresh, outside
from tests.observer import adopt_orphans
from tests.observer.reports import Ending, ending

pytestmark = [pytest.mark.vm, pytest.mark.kill]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and cgroups")
CALM = Plan(0, (Work(Kind.TASK, 0.0),), ())


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


def cut_out(lines: list[bytes]) -> list[bytes]:
    at = next(i for i, line in enumerate(lines) if b'"egress.intent"' in line)
    return lines[:at] + lines[at + 1 :]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize("wound", [cut_out, swapped])
def test_an_audit_line_that_is_cut_out_or_swapped_is_a_loss(
    wound: Callable[[list[bytes]], list[bytes]], seen: tuple[System, Observer, Verdict]
) -> None:
    found, system = sandbox(seen), seen[0]
    file = system.state / "host" / "audit" / "sealed" / found.sandbox / "chain.ndjson"
    whole, paths = file.read_bytes(), [f"/0/0/1/{i}" for i in range(0, 40, 5)]
    try:
        for data, lost in ((whole, False), (b"".join(wound(whole.splitlines(keepends=True))), True)):
            file.write_bytes(data)
            verdict = Verdict(CALM, [], [])
            judge_chain(system, verdict, found, paths, calm=True)
            assert bool(verdict.lost) is lost, verdict.lost
    finally:
        file.write_bytes(whole)


def test_a_request_that_no_chain_knows_is_a_loss(seen: tuple[System, Observer, Verdict]) -> None:
    verdict = Verdict(CALM, [], [])
    judge_chain(seen[0], verdict, sandbox(seen), ["/0/0/1/0", "/0/0/1/999"], calm=True)
    assert verdict.lost == [f"{sandbox(seen).sandbox}: /0/0/1/999 was answered and is not in the chain"]
