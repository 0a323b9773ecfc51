"""What a host says it holds is what is there: each planted thing is found, with its age, and no stranger's."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.fleet import HeldHost
from paddock.contracts.fleet import Hold
from paddock.contracts.hosts import SandboxRef
from paddock.contracts.ids import sandbox_id
from paddock.host import inventory
from paddock.host.inventory import join, stale_templates, strays
from paddock.host.messages import KeeperAnswer, Stray
from paddock.host.paths import HostPaths
from paddock.host.slots import REMEMBERED_S, Slots
from paddock.microvm.cgroup import Hierarchy

ONE, TWO = (sandbox_id("w", str(n)) for n in range(2))
PREFIX = "local-local-1-"


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    made = HostPaths(tmp_path / "host")
    for directory in (made.run, made.held, made.output):
        directory.mkdir(parents=True)
    return made


@pytest.fixture
def groups(tmp_path: Path) -> Hierarchy:
    """Two hierarchies as directories: what the kernel shows there is files, too."""
    for name in ("unified", "pids"):
        (tmp_path / name / "paddock").mkdir(parents=True)
    return Hierarchy(tmp_path / "unified", (("pids", tmp_path / "pids"),))


def group(groups: Hierarchy, name: str, *pids: int) -> None:
    assert groups.unified
    directory = groups.unified / "paddock" / name
    directory.mkdir()
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@contextmanager
def at_work(directory: Path) -> Iterator[int]:
    """A process whose working directory is there."""
    process = subprocess.Popen(["sleep", "60"], cwd=directory)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def look(paths: HostPaths, groups: Hierarchy, *known: str) -> dict[str, Stray]:
    return {stray.name: stray for stray in strays(paths, PREFIX, known, groups)}


def test_an_empty_host_has_nothing(paths: HostPaths, groups: Hierarchy) -> None:
    assert look(paths, groups) == {}


def test_each_thing_without_a_record_is_found(paths: HostPaths, groups: Hierarchy) -> None:
    paths.sandbox(ONE).mkdir()
    paths.record(ONE).write_text('{"ref": cut')
    paths.ends(ONE).touch()
    group(groups, f"{PREFIX}{ONE}")
    found = look(paths, groups)[ONE]
    assert {*found.holds} == {Hold.RUNDIR, Hold.RECORD, Hold.SOCKET, Hold.CGROUP}
    assert found.foreign == ""
    assert found.age_s is not None
    assert found.age_s < 60


def test_what_has_a_record_is_no_stray(paths: HostPaths, groups: Hierarchy) -> None:
    paths.sandbox(ONE).mkdir()
    paths.record(ONE).write_text("{}")
    group(groups, f"{PREFIX}{ONE}", os.getpid())
    assert look(paths, groups, ONE) == {}


def test_a_process_is_found_where_it_works_also_when_its_directory_is_gone(paths: HostPaths, groups: Hierarchy) -> None:
    (paths.sandbox(ONE) / "vm").mkdir(parents=True)
    with at_work(paths.sandbox(ONE) / "vm") as pid:
        group(groups, f"{PREFIX}{ONE}", pid)
        assert {*look(paths, groups)[ONE].holds} == {Hold.RUNDIR, Hold.PROCESSES, Hold.CGROUP}
        (paths.sandbox(ONE) / "vm").rmdir()
        paths.sandbox(ONE).rmdir()
        found = look(paths, groups)[ONE]
        assert {*found.holds} == {Hold.PROCESSES, Hold.CGROUP}
        assert found.foreign == ""
        assert found.age_s is not None


def test_a_cgroup_of_another_host_of_the_same_name_is_not_ours(paths: HostPaths, groups: Hierarchy) -> None:
    """Two hosts of one machine may both be `local-1`: the kernel says where the processes work."""
    with at_work(paths.root) as pid:
        group(groups, f"{PREFIX}{ONE}", pid)
        assert look(paths, groups) == {}
        paths.sandbox(ONE).mkdir()
        assert "do not work in this host's" in look(paths, groups)[ONE].foreign


def test_cgroups_of_other_names_are_left_out_and_half_names_are_shown(paths: HostPaths, groups: Hierarchy) -> None:
    group(groups, f"other-local-1-{ONE}")
    group(groups, f"{PREFIX}sb-12")
    paths.sandbox("notes").mkdir()
    assert {*look(paths, groups)} == {"sb-12", "notes"}


def test_it_is_as_old_as_its_youngest_part(
    paths: HostPaths, groups: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = {f"{PREFIX}{ONE}": 50.0, ONE: 7000.0}
    monkeypatch.setattr(inventory, "_age", lambda path, _: ages[path.name])
    paths.sandbox(ONE).mkdir()
    group(groups, f"{PREFIX}{ONE}")
    assert look(paths, groups)[ONE].age_s == 50


def test_age_is_since_the_last_change(paths: HostPaths, groups: Hierarchy) -> None:
    paths.sandbox(ONE).mkdir()
    before = look(paths, groups)[ONE].age_s
    assert before is not None
    os.utime(paths.sandbox(ONE), (0, 0))  # a time that somebody sets does not make it old
    after = look(paths, groups)[ONE].age_s
    assert after is not None
    assert after < 60


def test_stale_templates_are_neither_loaded_nor_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("loaded", "stale", "young", ".half.123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ram").write_bytes(b"x" * 8192)
    (tmp_path / ".stale.lock").touch()
    old = {"loaded", "stale", ".half.123", ".stale.lock"}
    monkeypatch.setattr(inventory, "_age", lambda path, _: 8 * 86400.0 if path.name in old else 0.0)
    found = stale_templates(tmp_path, {"loaded"})
    assert [one.name for one in found] == [".half.123", "stale"]
    assert all(one.bytes >= 8192 for one in found)
    assert stale_templates(tmp_path / "none", ()) == ()


# The worker's half


def ref(name: str) -> SandboxRef:
    return SandboxRef(sandbox_id=sandbox_id(name, "r"), workflow_id=name, run_id="r", environment="local", host="h")


async def test_all_parts_of_a_sandbox_are_one_row_and_its_record_says_how_old_it_is(tmp_path: Path) -> None:
    host = HeldHost(tmp_path / "host", [ref("a")])
    leases = KeeperAnswer(id=1, leases={ref("a").sandbox_id: time.time()})
    found = join(host.config, await host.ask("survey"), leases, host.slots, host.objects)
    [row] = found.found
    assert (row.workflow_id, row.run_id) == ("a", "r")
    assert row.holds == (Hold.RECORD, Hold.PROCESSES, Hold.SLOT, Hold.CREDENTIAL)
    assert row.age_s is not None
    assert 3500 < row.age_s < 3700
    assert (found.left, found.missing) == ((), ())


async def test_a_slot_and_a_credential_without_a_record_are_found(tmp_path: Path) -> None:
    host = HeldHost(tmp_path / "host", [])
    host.slots.confirm(ONE, "w", ())
    leases = KeeperAnswer(id=1, leases={ONE: time.time() - 5000, TWO: time.time() - 700})
    found = join(host.config, await host.ask("survey"), leases, host.slots, host.objects)
    rows = {row.sandbox_id: row for row in found.found}
    assert rows[ONE].holds == (Hold.SLOT, Hold.CREDENTIAL)
    assert rows[ONE].workflow_id == "w"
    assert rows[ONE].age_s == pytest.approx(0, abs=30)
    assert rows[TWO].age_s == pytest.approx(700, abs=30)


async def test_a_reservation_is_not_held_by_anybody_yet(tmp_path: Path) -> None:
    host = HeldHost(tmp_path / "host", [])
    slots = Slots(tmp_path / "slots.json", 3)
    slots.reserve(ONE, "w")
    assert join(host.config, await host.ask("survey"), KeeperAnswer(id=1), slots, host.objects).found == ()


async def test_a_broker_that_is_silent_and_an_answer_that_was_cut_make_the_list_incomplete(tmp_path: Path) -> None:
    host = HeldHost(tmp_path / "host", [ref("a")])
    silent = join(host.config, await host.ask("survey"), None, host.slots, host.objects)
    assert "credentials" in silent.missing[0]
    whole, cut = await host.ask("survey"), KeeperAnswer(id=1, more=3)
    assert join(host.config, whole, cut, host.slots, host.objects).missing
    assert join(host.config, cut, KeeperAnswer(id=1), host.slots, host.objects).missing


async def test_what_nobody_may_ask_for_any_more_is_left(tmp_path: Path) -> None:
    host = HeldHost(tmp_path / "host", [ref("a")])
    now = 0.0
    slots = Slots(tmp_path / "slots.json", 3, lambda: now)
    for name in (ONE, TWO):
        slots.confirm(name, "w", ())
        (host.config.paths.output / name).mkdir()
    with host.objects.writer(ONE) as writer:
        writer.write(b"x")
        writer.commit()
    slots.release(ONE)
    now = REMEMBERED_S + 1
    slots.release(TWO)
    [left] = join(host.config, await host.ask("survey"), KeeperAnswer(id=1), slots, host.objects).left
    assert (left.sandbox_id, left.output, left.objects) == (ONE, True, True)
    assert left.age_s is not None
