"""`paddock up` as a thing of its own: what it says, what it refuses, and what survives or ends with it."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import PADDOCK, Up
from tests.e2e.world import Observed, alive, every_receipt, processes_of, result, start, status, until

pytestmark = pytest.mark.vm
PARTS = {"up", "temporal", "relay", "control", "environment", "keeper", "recorder", "broker", "worker"}


def refused(*words: str, state: Path) -> str:
    """What `paddock up WORDS` says on standard error when it ends with an error instead of running."""
    done = subprocess.run([PADDOCK, "up", "--state", str(state), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_one_line_says_where_everything_is_and_every_part_lives_there(up: Up) -> None:
    pids = up.pids
    assert set(pids) == PARTS
    assert len(set(pids.values())) == len(PARTS)
    assert all(alive(pid) for pid in pids.values())
    assert up.info["pid"] == pids["up"]
    assert Path(str(up.info["state"])) == up.state
    for address in (up.info["temporal"], up.info["ui"], up.info["relay"]):
        host, _, port = str(address).rpartition("://")[2].partition("/")[0].rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_a_second_one_on_the_same_state_is_refused_and_the_first_goes_on(up: Up) -> None:
    said = refused(state=up.state)
    assert "another `paddock up` runs on" in said
    assert "stop it first" in said
    up.run("run", "--", "true", check=True)


@pytest.mark.parametrize("option", ["--port", "--ui-port"])
def test_a_port_that_is_taken_is_refused_with_words(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(option, str(port), state=tmp_path)
    assert f"port {port}" in said
    assert "taken" in said
    assert "another one" in said
    assert not (tmp_path / "up.json").exists()


def test_a_configuration_that_is_wrong_is_refused_by_its_field(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("slots: many\nconections: []\n")
    said = refused("--config", str(config), state=tmp_path / "state")
    assert "slots" in said
    assert "conections" in said
    assert "nowhere.yaml" in refused("--config", str(tmp_path / "nowhere.yaml"), state=tmp_path / "state")


def test_after_a_kill_the_next_one_takes_a_running_sandbox_back(tmp_path: Path) -> None:
    seen, here = Observed(tmp_path), Up(tmp_path / "state").start()
    script = "for i in $(seq 150); do echo line $i; sleep 0.1; done"
    workflow = start(here, {"task": {"argv": ["sh", "-c", script]}})
    until(lambda: status(here, workflow)["state"] == "running")
    sandbox = str(status(here, workflow)["sandbox_id"])
    until((here.state / "host" / "output" / sandbox / "1.out").exists)
    supervisor, vmm = processes_of(here, sandbox)
    assert here.process
    parts = here.pids
    os.kill(here.process.pid, signal.SIGKILL)
    here.process.wait()
    until(lambda: not any(alive(pid) for pid in parts.values()))
    assert alive(supervisor)
    assert alive(vmm)
    again = Up(here.state).start()
    try:
        logs = again.run("sandbox", "logs", "-f", workflow, check=True)
        report = result(again, workflow)
        assert report["outcome"] == "succeeded"
        every_receipt(report)
        assert logs.stdout == "".join(f"line {i}\n" for i in range(1, 151))
        assert not alive(supervisor)
        assert not alive(vmm)
    finally:
        assert again.stop() == 0
    assert not seen.left(sandbox)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_ends_a_running_sandbox_with_receipts_and_leaves_nothing(
    how: signal.Signals, tmp_path: Path
) -> None:
    seen, here = Observed(tmp_path), Up(tmp_path / "state").start()
    workflow = start(here, {"task": {"argv": ["sleep", "300"]}})
    until(lambda: status(here, workflow)["state"] == "running")
    sandbox = str(status(here, workflow)["sandbox_id"])
    assert here.process
    here.process.send_signal(how)
    assert here.process.wait(60) == 0
    assert not seen.left(sandbox)
    assert list((here.state / "host" / "run").iterdir()) == []
    assert not (here.state / "up.json").exists()
    again = Up(here.state).start()
    try:
        report = result(again, workflow)
    finally:
        assert again.stop() == 0
    assert report["outcome"] == "stopped"
    every_receipt(report)


def test_a_run_with_nothing_running_brings_everything_up_and_down_again(tmp_path: Path) -> None:
    seen, here = Observed(tmp_path), Up(tmp_path / "state")
    code, report, output = here.report("--", "echo", "hello")
    assert (code, output) == (0, "hello")
    assert report["outcome"] == "succeeded"
    every_receipt(report)
    assert not seen.left(str(report["sandbox_id"]))
    assert not (here.state / "up.json").exists()


def test_a_run_that_is_refused_takes_down_what_it_brought_up(tmp_path: Path) -> None:
    seen, here = Observed(tmp_path), Up(tmp_path / "state")
    done = here.run("run", "--policy", "no-such", "--", "true")
    assert done.returncode == 125
    assert "no-such" in done.stderr
    assert not seen.left()
