"""The program that a machine runs first, as a process: its exit codes, its words, and what others may see of it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paddock.bootstrap.__main__ import load
from tests.bootstrap.rig import DOC, RECORDER, Environment, soon
from tests.bootstrap.test_secrecy import silent
from tests.secrets.rig import until

ROOT = Path(__file__).resolve().parents[2]


def written(env: Environment, host: str, attempt: int = 1, **more: Any) -> tuple[Path, dict[str, Any]]:
    fields = {**env.config(host, attempt).model_dump(mode="json"), **more}
    file = env.directory / f"{host}.json"
    file.write_text(json.dumps(fields))
    return file, fields


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paddock.bootstrap", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_machine_comes_to_its_credentials_and_a_restart_finds_them(env: Environment) -> None:
    host, machine = env.opened()
    file, fields = written(env, host, **env.cloud.says(machine))
    first, again = run(str(file)), run(str(file))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert Path(fields["places"]["recorder"]).read_text() == RECORDER
    assert f"{host}.1 has its credentials\n" in first.stderr
    assert f"{host}.1 has its credentials already\n" in again.stderr
    silent(first.stdout + first.stderr + again.stderr)


def test_a_refused_machine_says_why(env: Environment) -> None:
    host, machine = env.opened()
    env.enrolment(machine, env.config(host)).run()
    file, fields = written(env, host, **env.cloud.says(machine))
    done = run(str(file))
    assert done.returncode == 1
    assert f"the grant of {host}.1 was used before, or its time is over" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(Path(place).exists() for place in fields["places"].values())


def test_what_others_on_the_machine_see_is_no_secret(gcp: Environment) -> None:
    host = gcp.host()
    token = gcp.grants.join(host, soon()).value
    join = gcp.directory / f"{host}-token"
    join.write_text(token)
    file, _ = written(gcp, host, 0, identity="join", join_file=str(join), patience_s=60.0)
    # A store that hangs keeps the program at its work while we look.
    os.kill(gcp.store.process.pid, signal.SIGSTOP)
    program = subprocess.Popen(
        [sys.executable, "-m", "paddock.bootstrap", str(file)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        proc = Path(f"/proc/{program.pid}")
        until(lambda: b"paddock.bootstrap" in (proc / "cmdline").read_bytes() and _connected(proc), 60)
        seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        os.kill(gcp.store.process.pid, signal.SIGCONT)
        _, words = program.communicate(timeout=60)
    finally:
        os.kill(gcp.store.process.pid, signal.SIGCONT)
        program.kill()
        program.wait()
    assert token.encode() not in seen
    assert program.returncode == 0, words
    assert not join.exists()
    silent(words, token)


def _connected(proc: Path) -> bool:
    """Whether the process has a socket."""
    found = []
    for link in (proc / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.append(os.readlink(link))
    return any(one.startswith("socket:") for one in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"identity": "vms"}, "identity: Input should be"),
        ({"hots": "x"}, "hots: Extra inputs"),
        ({"store": {"address": "http://bao.example.com"}}, "store.address: Value error, https"),
        ({"identity": "join"}, "join_file is not set"),
        ({"temporal": "api-key", "places": {}}, "places does not say where that goes"),
    ],
)
def test_a_wrong_configuration_is_named(gcp: Environment, change: dict[str, Any], words: str) -> None:
    file, _ = written(gcp, gcp.host(), **{"identity": "gcp", **change})
    done = run(str(file))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_documents_example_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```json\n(.*?)^```$", DOC.read_text(), flags=re.M | re.S)
    file = tmp_path / "enrol.json"
    file.write_text(example)
    config = load(file)
    assert (config.name, config.uri) == ("h7.1", "spiffe://paddock/eu/host/h7.1")


def test_no_configuration_is_told() -> None:
    assert run().returncode == 2
    missing = run("nowhere.json")
    assert (missing.returncode, "cannot be read: No such file" in missing.stderr) == (2, True)
