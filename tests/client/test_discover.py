"""A client finds the `paddock up` of its machine, and no dead one."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from paddock.client.discover import running, state_dir


def write(directory: Path, **fields: object) -> None:
    (directory / "up.json").write_text(json.dumps(fields))


def test_a_running_one_is_found_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, temporal="127.0.0.1:1", relay="ws://x", pid=os.getpid(), state=str(tmp_path), pids={"up": 1})
    up = running(tmp_path)
    assert up is not None
    assert up.temporal == "127.0.0.1:1"


def test_a_dead_one_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    write(tmp_path, temporal="127.0.0.1:1", pid=gone.pid)
    assert running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"temporal": "x"}', '{"temporal": "x", "pid": -1}'])
def test_a_torn_file_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "up.json").write_text(text)
    assert running(tmp_path) is None


def test_nothing_there_is_nobody(tmp_path: Path) -> None:
    assert running(tmp_path / "absent") is None


def test_the_state_directory_is_the_given_the_variable_s_or_the_user_s(tmp_path: Path) -> None:
    assert state_dir(tmp_path, {}) == tmp_path
    assert state_dir(None, {"PADDOCK_STATE": "/s", "XDG_STATE_HOME": "/x"}) == Path("/s")
    assert state_dir(None, {"XDG_STATE_HOME": "/x"}) == Path("/x/paddock")
    assert state_dir(None, {"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/paddock"
