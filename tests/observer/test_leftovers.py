"""Every kind of leak that a sandbox could leave is found when it is planted, and nothing is found when none is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.observer import Allowed, Snapshot, Trace, adopt_orphans, leftovers, reap_orphans, settle, snapshot

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, cgroups and network namespaces")
LEAVE = """
import os, time
if os.fork() == 0:
    os.setsid()
    {body}
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def _orphans_stay_in_the_family() -> None:
    adopt_orphans()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def look(place: Path) -> Callable[[], Snapshot]:
    return lambda: snapshot((place,))


@pytest.fixture
def detached() -> Iterator[Callable[[str], int]]:
    """Starts a program in the background of nobody: forked twice, its own session, its parent gone."""
    started: list[int] = []

    def start(body: str) -> int:
        command = [sys.executable, "-I", "-S", "-c", LEAVE.format(body=body)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            started.append(int(child.stdout.readline()))
        return started[-1]

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def found(before: Snapshot, look: Callable[[], Snapshot], kind: str) -> list[Trace]:
    return [trace for trace in leftovers(before, look(), Allowed(), root=os.getpid()) if trace.kind == kind]


def test_a_quiet_machine_has_no_leftovers(look: Callable[[], Snapshot]) -> None:
    before = look()
    assert settle(before, look, Allowed(), root=os.getpid()) == []


def test_a_process_is_found_after_its_parents_are_gone(
    look: Callable[[], Snapshot], detached: Callable[[str], int]
) -> None:
    before = look()
    pid = detached("pass")
    (trace,) = found(before, look, "process")
    assert trace.owners == (pid,)


def test_a_process_that_ended_is_no_leftover(look: Callable[[], Snapshot]) -> None:
    before = look()
    subprocess.run(["true"], check=True)
    assert found(before, look, "process") == []


def test_a_process_that_took_over_a_pid_is_not_taken_for_the_old_one(look: Callable[[], Snapshot]) -> None:
    after = look()
    mine = after.processes[os.getpid()]
    traces = {key: trace for key, trace in after.traces.items() if key != ("process", mine.key)}
    before = Snapshot(traces | {("process", replace(mine, start=1).key): Trace("process", "", "")}, after.files, {}, {})
    assert [trace.owners for trace in leftovers(before, after, Allowed())] == [(os.getpid(),)]


@pytest.mark.parametrize(
    "body",
    [
        "import socket; s = socket.create_server(('127.0.0.1', 0))",
        "import socket; s = socket.create_server(('::1', 0), family=socket.AF_INET6)",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0leak-' + str(os.getpid())); s.listen()",
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(''); s.listen()",
    ],
    ids=["tcp", "tcp6", "udp", "unix", "seqpacket"],
)
def test_a_socket_is_found(body: str, look: Callable[[], Snapshot], detached: Callable[[str], int]) -> None:
    before = look()
    pid = detached(body)
    assert [trace.owners for trace in found(before, look, "socket")] == [(pid,)]


def test_a_file_is_found_and_a_new_folder_stands_for_its_content(place: Path, look: Callable[[], Snapshot]) -> None:
    before = look()
    (place / "left.log").write_text("x")
    (place / "run" / "sb-1").mkdir(parents=True)
    (place / "run" / "sb-1" / "control").write_text("x")
    assert [trace.what for trace in found(before, look, "file")] == [str(place / "left.log"), str(place / "run")]


def test_what_is_allowed_is_no_leftover_and_what_only_sounds_like_it_is(
    place: Path, look: Callable[[], Snapshot]
) -> None:
    before = look()
    for name in ("build", "build-2", "noise-1"):
        (place / name).mkdir()
        (place / name / "file").write_text("x")
    allowed = Allowed((place / "build",), (f"{place}/noise-*",))
    assert [trace.what for trace in leftovers(before, look(), allowed, root=os.getpid())] == [str(place / "build-2")]


def test_in_a_shared_place_others_go_on_in_their_own_folders_but_nothing_new_of_ours_hides(
    place: Path, look: Callable[[], Snapshot]
) -> None:
    (place / "others").mkdir()
    before = look()
    (place / "others" / "job-2").write_text("x")
    (place / "tmp-of-ours").mkdir()
    (place / "tmp-of-ours" / "deep").write_text("x")
    found_here = leftovers(before, look(), Allowed(shared=(place,)), root=os.getpid())
    assert [trace.what for trace in found_here] == [str(place / "tmp-of-ours")]
    strict = leftovers(before, look(), Allowed(), root=os.getpid())
    assert str(place / "others" / "job-2") in [trace.what for trace in strict]


def test_a_shared_memory_file_is_found() -> None:
    def look() -> Snapshot:
        return snapshot((Path("/dev/shm"),))

    before, leak = look(), Path(f"/dev/shm/paddock-leak-{uuid.uuid4().hex}")
    leak.write_bytes(b"x")
    try:
        assert str(leak) in [trace.what for trace in found(before, look, "file")]
    finally:
        leak.unlink()


@ROOT_ONLY
def test_a_mount_is_found(place: Path, look: Callable[[], Snapshot]) -> None:
    (place / "at").mkdir()
    before = look()
    subprocess.run(["mount", "-t", "tmpfs", "leak", place / "at"], check=True)
    try:
        assert [trace.what for trace in found(before, look, "mount")] == [f"tmpfs of leak at {place / 'at'}"]
    finally:
        subprocess.run(["umount", place / "at"], check=True)
    assert found(before, look, "mount") == []


@ROOT_ONLY
def test_a_mount_in_a_namespace_of_its_own_is_found(look: Callable[[], Snapshot], place: Path) -> None:
    before = look()
    script = f"mount -t tmpfs hidden {place} && echo ready && exec sleep 600"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            assert any("tmpfs of hidden" in trace.what for trace in found(before, look, "mount"))
        finally:
            child.kill()


def hierarchies() -> list[Path]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(words[4]) for words in lines if words[words.index("-") + 1] in ("cgroup", "cgroup2")]


@ROOT_ONLY
@pytest.mark.skipif(not hierarchies(), reason="no cgroup hierarchy is mounted here")
def test_an_empty_group_is_found_in_every_hierarchy_that_takes_one(look: Callable[[], Snapshot]) -> None:
    before, made = look(), []
    for hierarchy in hierarchies():
        group = hierarchy / f"leak-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:  # a hierarchy mounted read-only
            continue
        made.append(group)
    try:
        assert made
        whats = [trace.what for trace in found(before, look, "cgroup")]
        assert all(any(str(group) in what for what in whats) for group in made)
    finally:
        for group in made:
            group.rmdir()


@ROOT_ONLY
def test_a_network_namespace_is_found_by_its_process(
    look: Callable[[], Snapshot], detached: Callable[[str], int]
) -> None:
    before = look()
    pid = detached("import ctypes; ctypes.CDLL(None).unshare(0x40000000)")
    assert [trace.owners for trace in found(before, look, "netns")] == [(pid,)]


@ROOT_ONLY
def test_a_network_namespace_that_only_a_mount_pins_is_found(look: Callable[[], Snapshot], place: Path) -> None:
    (place / "netns").touch()
    before = look()
    subprocess.run(["unshare", f"--net={place / 'netns'}", "true"], check=True)
    try:
        assert len(found(before, look, "netns-mount")) == 1
    finally:
        subprocess.run(["umount", place / "netns"], check=True)


@ROOT_ONLY
def test_a_network_namespace_that_only_a_descriptor_keeps_is_found(
    look: Callable[[], Snapshot], detached: Callable[[str], int]
) -> None:
    before = look()
    body = (
        "import ctypes; here = os.open('/proc/self/ns/net', 0); c = ctypes.CDLL(None); c.unshare(0x40000000); "
        "kept = os.open('/proc/self/ns/net', 0); c.setns(here, 0); os.close(here)"
    )
    pid = detached(body)
    assert [trace.owners for trace in found(before, look, "netns-descriptor")] == [(pid,)]


@ROOT_ONLY
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")
def test_a_network_interface_is_found(look: Callable[[], Snapshot]) -> None:
    before, name = look(), f"leak{os.getpid() % 100000}"
    if subprocess.run(["ip", "tuntap", "add", name, "mode", "tap"], capture_output=True).returncode:
        pytest.skip("this kernel makes no tap interface")
    try:
        assert [trace.what for trace in found(before, look, "interface")] == [name]
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


def test_others_at_work_on_the_machine_are_left_out_but_only_outside_the_family(
    look: Callable[[], Snapshot], detached: Callable[[str], int]
) -> None:
    before = look()
    pid = detached("pass")
    after = look()
    assert [t.owners for t in leftovers(before, after, Allowed(), root=os.getpid()) if t.kind == "process"] == [(pid,)]
    assert pid not in [p for t in leftovers(before, after, Allowed(), root=2**22 + 1) for p in t.owners]
    assert pid in [p for t in leftovers(before, after, Allowed()) for p in t.owners]


def test_dead_orphans_are_reaped(detached: Callable[[str], int]) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import os\nif os.fork() == 0:\n    print(flush=True)"]
    reap_orphans()  # those of earlier tests in this process
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # the orphan may outlive its parent a little
    assert reap_orphans() == 1
