"""A process is its pid and its start time: another one that got the pid later is never watched or killed for it."""

import os
import select
import subprocess
from collections.abc import Iterator

import pytest

from paddock.host.processes import Process, started


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_a_living_process_is_alive_and_its_end_is_seen(sleeper: "subprocess.Popen[bytes]") -> None:
    process = Process.of(sleeper.pid)
    assert process.alive()
    fd = process.open()
    assert fd is not None
    assert select.select([fd], [], [], 0)[0] == []
    process.kill()
    assert select.select([fd], [], [], 5)[0] == [fd]
    os.close(fd)
    assert not process.alive(), "a zombie does not live"
    sleeper.wait()
    assert not process.alive()
    assert process.open() is None
    process.kill()  # harmless


def test_a_pid_that_another_process_got_is_not_the_one_that_was_known(sleeper: "subprocess.Popen[bytes]") -> None:
    earlier = Process(sleeper.pid, started(sleeper.pid) - 1)
    assert not earlier.alive()
    assert earlier.open() is None
    earlier.kill()
    assert sleeper.poll() is None, "the new owner of the pid was killed"


@pytest.mark.parametrize("process", [Process(0, 0), Process(-1, 0), Process(2**22 + 1, 7), Process(0, 5)])
def test_what_never_was_a_process_is_neither_alive_nor_opened_nor_killed(process: Process) -> None:
    assert not process.alive()
    assert process.open() is None
    process.kill()


def test_the_start_time_of_a_process_with_an_odd_name_is_read(tmp_path: object) -> None:
    child = subprocess.Popen(["sh", "-c", "printf 'a) R (b' > /proc/self/comm 2>/dev/null; exec sleep 60"])
    try:
        assert started(child.pid) > 0
        assert Process.of(child.pid).alive()
    finally:
        child.kill()
        child.wait()
