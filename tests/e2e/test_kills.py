"""A killed supervisor or VMM, as `paddock run` shows it: lost within 5 s. tests/faults kills everything else."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PADDOCK, Up
from tests.e2e.fence import API, SECRET, Servers, servers

ROUNDS = int(os.environ.get("PADDOCK_LOOPS", "1"))
SEED = int(os.environ.get("PADDOCK_SEED", "20261125"))
LINES = 100
# Writes a numbered line every 100 ms for 10 s, and asks the API for something with a credential it does not hold.
TASK = f"""
import ssl, time, urllib.request
trust = ssl.create_default_context()  # once: reading every authority costs a guest without KVM a second
begin = time.monotonic()
for i in range({LINES}):
    print(f"line {{i:04d}}", flush=True)
    if i % 5 == 0:
        with urllib.request.urlopen(f"https://{API}/item/{{i}}", timeout=20, context=trust) as answer:
            print(f"item {{i}} {{answer.status}}", flush=True)
    time.sleep(max(0, begin + (i + 1) * 0.1 - time.monotonic()))
"""
EXPECTED = "".join(f"line {i:04d}\n" + (f"item {i} 200\n" if i % 5 == 0 else "") for i in range(LINES))
pytestmark = [pytest.mark.vm, pytest.mark.kill]


@pytest.fixture(scope="module")
def fence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("fence")) as here:
        yield here


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, fence: Servers) -> Iterator[Up]:
    here = Up(tmp_path_factory.mktemp("state"), fence.config).start()
    here.run("secret", "set", "api-token", input=SECRET, check=True)
    here.run("policy", "apply", str(fence.policy), check=True)
    yield here
    assert here.stop() == 0


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def runs(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def supervisor_and_vmm(up: Up) -> tuple[int, int]:
    """The one supervisor of this state and its VMM: it works in its run directory there."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().parent == up.state / "host/run":
                for child in children(int(entry.name)):
                    return int(entry.name), child
        except OSError:
            continue
    raise AssertionError("no supervisor runs")


class Running:
    """`paddock run --json` of the task, its output read as it comes."""

    def __init__(self, up: Up) -> None:
        environment = {**os.environ, "PADDOCK_STATE": str(up.state), "NO_COLOR": "1"}
        argv = [PADDOCK, "run", "--json", "--policy", "fence-test", "--", "python3", "-c", TASK]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.lines: list[str] = []
        self.first = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            self.first.set()

    def finish(self, timeout: float = 60) -> tuple[int, dict[str, object], str]:
        import json

        code = self.process.wait(timeout)
        self._reader.join(10)
        assert self.process.stderr
        self.errors = self.process.stderr.read()
        assert self.lines, self.errors
        return code, json.loads(self.lines[-1]), "".join(self.lines[:-1])


def check_every_receipt(report: dict[str, object]) -> None:
    receipts = report["receipts"]
    assert {r["resource"] for r in receipts} >= {"vm", "supervisor", "rundir", "socket", "slot", "credential"}  # type: ignore[attr-defined]
    assert all(r["gone"] == "proved" for r in receipts), receipts  # type: ignore[attr-defined]
    assert report["audit"]["verified"], report["audit"]  # type: ignore[index]


def moment(victim: str, round_: int) -> float:
    return random.Random(f"{SEED}-{victim}-{round_}").uniform(0.3, 8.5)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("victim", ["supervisor", "vmm"])
def test_a_sandbox_is_lost_within_five_seconds_of_the_death_of(victim: str, round_: int, up: Up) -> None:
    running = Running(up)
    assert running.first.wait(40)
    time.sleep(moment(victim, round_))
    supervisor, vmm = supervisor_and_vmm(up)
    os.kill(supervisor if victim == "supervisor" else vmm, signal.SIGKILL)
    killed = time.monotonic()
    code, report, output = running.finish()
    assert time.monotonic() - killed < 5
    assert code == 125
    assert report["outcome"] == "sandbox-lost"
    assert EXPECTED.startswith(output)
    check_every_receipt(report)
    assert not [pid for pid in (supervisor, vmm) if runs(pid)]
