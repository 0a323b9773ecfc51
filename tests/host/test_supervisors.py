"""Sandboxes of a host: whatever fails while one is made, nothing is left that no undo would find."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.contracts.hosts import Boot, SandboxRef
from paddock.contracts.report import Gone, Receipt
from paddock.contracts.spec import Shape
from paddock.host import supervisors as module
from paddock.host.config import HostConfig
from paddock.host.loop import Loop
from paddock.host.messages import RunRecord
from paddock.host.processes import Process
from paddock.host.remains import Remains
from paddock.host.supervisors import Kept, Supervisors
from paddock.host.templates import Loaded
from paddock.host.users import Users
from paddock.microvm.cgroup import Cgroup
from paddock.supervisor import rundir

SB = "sb-0123456789abcdef0123"
REF = SandboxRef(sandbox_id=SB, workflow_id="w", run_id="r", environment="test", host="h")
BOOT = Boot(ref=REF, image="base", shape=Shape(), lease_end=datetime.now(UTC) + timedelta(hours=1))


class Host:
    """A host whose supervisors are processes that only sleep."""

    def __init__(self, directory: Path) -> None:
        self.config = HostConfig(
            environment=f"test{os.getpid()}",
            host="h",
            state=str(directory),
            cache="",
            temporal="",
            policy_public_key="",
        )
        for path in (self.config.paths.run, self.config.paths.output, self.config.paths.held):
            path.mkdir(parents=True)
        self.loop, self.lost = Loop(), list[tuple[str, str]]()
        self.memory = os.memfd_create("test")
        self.loaded = cast(Loaded, type("L", (), {"template": None, "support": None, "memory_fd": self.memory}))
        self.next()

    def next(self) -> None:
        """Another keeper on the same state."""

        def on_lost(kept: Kept, why: str) -> None:
            self.lost.append((kept.sandbox_id, why))
            self.loop.stop()

        users = Users(62000, root=os.geteuid() == 0)
        self.all = Supervisors(self.loop, self.config, users, cast(Any, None), on_lost)

    def boot(self) -> Kept:
        return self.all.boot(BOOT, self.loaded, self.hand)

    def hand(self, _: RunRecord) -> tuple[socket.socket, socket.socket]:
        return socket.socketpair()

    @property
    def record(self) -> Path:
        return self.config.paths.record(SB)

    def run(self) -> None:
        self.loop.later(10, self.loop.stop)
        self.loop._running = True
        self.loop.run()

    def destroy(self) -> dict[str, Receipt]:
        answers: list[tuple[Receipt, ...]] = []

        def answer(receipts: tuple[Receipt, ...]) -> None:
            answers.append(receipts)
            self.loop.stop()

        self.all.destroy(SB, answer)
        if not answers:
            self.run()
        return {receipt.resource: receipt for receipt in answers[0]}

    @property
    def directory(self) -> Path:
        return self.config.paths.sandbox(SB)

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup.at(self.all._cgroup_name(SB))


def asleep(home: Path) -> int:
    """A process that works in `home`, as a supervisor or its VMM does."""
    return subprocess.Popen(["sleep", "60"], cwd=home).pid


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    def sleeper(name: str, body: Callable[[], None], keep: Any, log: Path, home: Path) -> int:
        return asleep(home)

    monkeypatch.setattr(module, "fork", sleeper)
    made = Host(tmp_path)
    yield made
    made.destroy()
    os.close(made.memory)
    signal.set_wakeup_fd(-1)


def all_gone(host: Host, receipts: dict[str, Receipt]) -> None:
    assert {receipt.gone for receipt in receipts.values()} == {Gone.PROVED}, receipts
    assert not host.directory.exists()
    assert not host.cgroup.exists()
    assert list(host.config.paths.held.iterdir()) == []
    assert host.all.kept == {}


def test_a_sandbox_that_booted_is_proved_gone_and_again_when_asked_again(host: Host) -> None:
    kept = host.boot()
    assert host.boot() is kept, "asked again, it is the same one"
    assert kept.process.alive()
    all_gone(host, host.destroy())
    assert not kept.process.alive()
    assert host.all.kept == {}
    all_gone(host, host.destroy())


def test_one_that_never_was_is_proved_not_there(host: Host) -> None:
    all_gone(host, host.destroy())


@pytest.mark.parametrize("failing", range(1, 9))
def test_a_boot_that_fails_anywhere_leaves_nothing_behind(
    failing: int, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that touches the disk or the kernel fails in its turn, as on a disk that is full."""
    steps = 0

    def guard(name: str, owner: Any) -> None:
        real = getattr(owner, name)

        def step(*args: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == failing:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        monkeypatch.setattr(owner, name, step)

    for name, owner in (("write", rundir), ("listen", module), ("fork", module), ("hand", host), ("_limit", host.all)):
        guard(name, owner)
    with contextlib.suppress(OSError):
        host.boot()
        assert steps < failing
    monkeypatch.undo()
    all_gone(host, host.destroy())


def test_a_supervisor_that_dies_unasked_is_told_with_its_last_word(host: Host) -> None:
    kept = host.boot()
    rundir.write(host.directory / rundir.FAREWELL, rundir.Farewell(why="the VMM died"))
    kept.process.kill()
    host.run()
    assert host.lost == [(SB, "the VMM died")]
    all_gone(host, host.destroy())


def test_the_next_keeper_finds_the_living_and_reports_the_dead(host: Host) -> None:
    first = host.boot()
    host.loop.remove(cast(int, first.pidfd))
    host.next()
    host.all.adopt()
    assert host.all.kept[SB].process == first.process
    host.all.kept[SB].process.kill()
    host.run()
    assert [name for name, _ in host.lost] == [SB]
    host.next()
    host.all.adopt()
    host.run()
    assert [name for name, _ in host.lost] == [SB, SB], "dead before this keeper came: told too"
    all_gone(host, host.destroy())


@pytest.mark.parametrize("forked", [False, True])
def test_what_a_keeper_left_that_died_in_the_middle_of_a_boot_is_found_and_removed(forked: bool, host: Host) -> None:
    record = RunRecord(ref=REF, boot=BOOT, index=0, created=datetime.now(UTC), lease_end=BOOT.lease_end)
    rundir.write(host.record, record)
    host.directory.mkdir()
    pid = asleep(host.directory) if forked else 0
    host.next()
    host.all.adopt()
    assert host.all.kept[SB].process.alive() is forked
    all_gone(host, host.destroy())
    assert not Process.of(pid).alive()


def test_a_directory_that_no_record_tells_of_is_removed_when_its_sandbox_is_destroyed(host: Host) -> None:
    host.directory.mkdir()
    all_gone(host, host.destroy())


def test_a_vmm_that_lives_on_is_never_proved_gone_and_stays_known(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.boot()
    vmm = Process.of(asleep(host.directory))
    with monkeypatch.context() as patch:
        patch.setattr(module, "GONE_TRIES", 3)
        patch.setattr(Remains, "kill", lambda remains: remains.process.kill())
        receipts = host.destroy()
    assert vmm.alive()
    assert {receipts[name].gone for name in ("vm", "disk", "rundir")} == {Gone.UNPROVED}
    assert SB in host.all.kept
    assert host.record.exists()
    all_gone(host, host.destroy())
    assert not vmm.alive()


def test_a_supervisor_that_hangs_ends_with_its_lease(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    over = BOOT.model_copy(update={"lease_end": datetime.now(UTC)})
    host.all.boot(over, host.loaded, host.hand)
    host.run()
    assert [name for name, _ in host.lost] == [SB]
    all_gone(host, host.destroy())


def test_a_lease_that_was_extended_is_not_ended_by_its_old_timer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    kept = host.all.boot(BOOT.model_copy(update={"lease_end": datetime.now(UTC)}), host.loaded, host.hand)
    host.all.extend(SB, datetime.now(UTC) + timedelta(hours=1))
    host.loop.later(0.05, host.loop.stop)
    host.run()
    assert kept.process.alive()


def test_no_lease_is_longer_than_the_environment_allows(host: Host) -> None:
    far = datetime.now(UTC) + timedelta(days=30)
    kept = host.all.boot(BOOT.model_copy(update={"lease_end": far}), host.loaded, host.hand)
    most = timedelta(seconds=host.config.caps.lifetime_s + 5)
    assert kept.record.lease_end - datetime.now(UTC) < most
    host.all.extend(SB, far)
    assert kept.record.lease_end - datetime.now(UTC) < most
