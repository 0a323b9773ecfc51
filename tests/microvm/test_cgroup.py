"""A VM's cgroup on the trees that machines have; the real one where this machine lets us."""

import os
import subprocess
from pathlib import Path

import pytest

from paddock.microvm.cgroup import Cgroup, Hierarchy, Limits, detect, prepare

V2 = "30 23 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw\n"
HYBRID = (
    "31 23 0:27 / {root}/unified rw - cgroup2 cgroup2 rw\n"
    "32 23 0:28 / {root}/memory rw - cgroup cgroup rw,memory\n"
    "33 23 0:29 / {root}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 23 0:30 / {root}/pids rw - cgroup cgroup rw,pids\n"
)


def test_a_unified_tree_gets_its_limits_and_our_processes_leave_the_inner_node(tmp_path: Path) -> None:
    own = tmp_path / "system.slice" / "paddock.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu io memory pids")
    (own / "cgroup.procs").write_text("")
    found = detect(V2.format(root=tmp_path), "0::/system.slice/paddock.service\n")
    assert found == Hierarchy(own, (), own=own)
    prepare(found)
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    # The kernel makes this file in a new cgroup; a plain directory has to be told.
    (own / "paddock").mkdir()
    (own / "paddock" / "cgroup.controllers").write_text("cpu memory pids")
    group = Cgroup.create("sb-1", Limits(memory_bytes=1 << 30, pids=64, cpus=1.5), found)
    assert (own / "paddock" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    home = own / "paddock" / "sb-1"
    assert group.procs_files() == (home / "cgroup.procs",)
    assert (home / "memory.max").read_text() == str(1 << 30)
    assert (home / "pids.max").read_text() == "64"
    assert (home / "cpu.max").read_text() == "150000 100000"


def test_a_hybrid_tree_limits_by_v1_and_is_joined_in_every_part(tmp_path: Path) -> None:
    for name in ("unified", "memory/outer", "cpu", "pids"):
        (tmp_path / name).mkdir(parents=True)
    found = detect(HYBRID.format(root=tmp_path), "4:memory:/outer\n3:pids:/\n1:cpu,cpuacct:/\n0::/\n")
    group = Cgroup.create("sb-1", Limits(memory_bytes=1000, pids=7, cpus=2), found)
    assert {file.relative_to(tmp_path).as_posix() for file in group.procs_files()} == {
        f"{part}/paddock/sb-1/cgroup.procs" for part in ("unified", "memory/outer", "cpu", "pids")
    }
    assert (tmp_path / "memory/outer/paddock/sb-1/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/paddock/sb-1/pids.max").read_text() == "7"
    assert (tmp_path / "cpu/paddock/sb-1/cpu.cfs_quota_us").read_text() == "200000"
    assert group.limited


def test_without_any_tree_everything_is_empty_and_nothing_fails() -> None:
    group = Cgroup.create("sb-1", Limits(memory_bytes=1), detect("", "0::/\n"))
    group.kill()
    group.remove()
    assert (group.procs_files(), group.empty(), group.limited, group.exists()) == ((), True, False, False)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_that_is_not_one_component_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        Cgroup.at(name, Hierarchy(None, ()))


def test_a_real_cgroup_kills_all_that_is_in_it_and_is_then_gone() -> None:
    found = detect()
    if found.unified is None and not found.controllers:
        pytest.skip("no cgroup tree that this user may write")
    prepare(found)
    group = Cgroup.create(f"test-{os.getpid()}", Limits(memory_bytes=256 << 20, pids=32, cpus=1), found)

    def join() -> None:
        for file in group.procs_files():
            file.write_text("0")

    tree = subprocess.Popen(["sh", "-c", "setsid sleep 100 & sleep 100"], preexec_fn=join)
    try:
        assert tree.pid in group.pids()
        assert not group.empty()
        with pytest.raises(OSError):
            group.remove()
        group.kill()
        assert tree.wait(10) == -9
        while not group.empty():
            pass
    finally:
        group.kill()
        tree.wait(10)
        group.remove()
    assert not group.exists()
