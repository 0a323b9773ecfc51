"""What goes wrong on a host: each fault is told with what to do, nothing is lost, and everything is torn down."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.client.sync import Paddock
from tests.e2e.conftest import PADDOCK, Up
from tests.e2e.fence import API, SECRET, Servers, servers
from tests.e2e.world import Observed, alive, every_receipt, processes_of, result, start, status, until
from tests.secrets.rig import Bao

pytestmark = pytest.mark.vm
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")


@contextmanager
def running(state: Path, **config: object) -> Iterator[Up]:
    """`paddock up` with this configuration; it must end well too."""
    file = state.parent / "config.json"
    file.write_text(json.dumps(config))
    here = Up(state, file).start()
    try:
        yield here
    finally:
        assert here.stop() == 0


def test_without_qemu_up_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    seen, config = Observed(tmp_path), tmp_path / "config.yaml"
    config.write_text("qemu: /nonexistent/qemu\n")
    for words in (["up", "--json"], ["run", "--", "true"]):
        argv = [PADDOCK, *words[:1], "--state", str(tmp_path / "state"), "--config", str(config), *words[1:]]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == (125 if words[0] == "run" else 1)
        assert "/nonexistent/qemu" in done.stderr
        assert "paddock doctor" in done.stderr or "paddock setup" in done.stderr or "make setup" in done.stderr
        assert "Traceback" not in done.stderr
        assert not seen.left()
        assert not (tmp_path / "state" / "up.json").exists()


def test_a_lease_that_nobody_extends_ends_the_sandbox_with_receipts(up: Up) -> None:
    began = time.monotonic()
    workflow = start(up, {"lifetime_s": 30})
    until(lambda: status(up, workflow)["state"] == "ready")
    supervisor, vmm = processes_of(up, str(status(up, workflow)["sandbox_id"]))
    report = result(up, workflow)
    assert 29 < time.monotonic() - began < 40
    assert report["outcome"] == "lease-ended"
    every_receipt(report)
    assert not alive(supervisor)
    assert not alive(vmm)


def test_with_everybody_gone_a_sandbox_ends_itself_at_the_end_of_its_lease(tmp_path: Path) -> None:
    seen, here = Observed(tmp_path), Up(tmp_path / "state").start()
    began = time.monotonic()
    workflow = start(here, {"lifetime_s": 30})
    until(lambda: status(here, workflow)["state"] == "ready")
    sandbox = str(status(here, workflow)["sandbox_id"])
    supervisor, vmm = processes_of(here, sandbox)
    assert here.process
    here.process.send_signal(signal.SIGKILL)
    here.process.wait()
    until(lambda: not (alive(supervisor) or alive(vmm)), 40)
    assert 29 < time.monotonic() - began < 37
    farewell = json.loads((here.state / "host" / "run" / sandbox / "farewell.json").read_text())
    assert "lease" in farewell["why"]
    again = Up(here.state).start()
    try:
        report = result(again, workflow)
    finally:
        assert again.stop() == 0
    assert report["outcome"] == "lease-ended"
    every_receipt(report)
    assert not seen.left(sandbox)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory whose tasks' output lies on a disk of one MiB."""
    output = tmp_path / "state" / "host" / "output"
    output.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "paddock-test", output], check=True)
    try:
        yield tmp_path / "state"
    finally:
        subprocess.run(["umount", output], check=True)


@NEEDS_ROOT
def test_a_full_disk_ends_the_task_says_so_and_the_next_one_runs(small_disk: Path) -> None:
    with running(small_disk) as here:
        code, report, output = here.report("--", "sh", "-c", "yes | head -c 8000000; sleep 60")
        assert code == 125
        assert report["outcome"] == "error"
        error: Any = report["error"]
        assert error["kind"] == "disk-full"
        assert error["remedy"]
        every_receipt(report)
        assert 0 < report["task"]["output_bytes"] < 1 << 20  # type: ignore[index]
        assert set(output) == {"y", "\n"}
        for file in (small_disk / "host" / "output").glob("*/*"):
            file.unlink()
        here.run("run", "--", "echo", "again", check=True)


@pytest.fixture
def fence(tmp_path: Path) -> Iterator[Servers]:
    with servers(tmp_path) as here:
        yield here


FILL = f"""
import http.client, ssl
link = http.client.HTTPSConnection("{API}", context=ssl.create_default_context())
for number in range(3000):
    link.request("POST", "/" + "x" * 2000)
    answer = link.getresponse()
    answer.read()
    if answer.status == 503:
        break
print(number, answer.status)
for number in range(50):  # what is smaller may still find room
    link.request("GET", "/item")
    answer = link.getresponse()
    answer.read()
    if answer.status != 200:
        break
print(number, answer.status)
"""


def test_when_the_audit_is_full_nothing_more_may_happen_and_the_next_sandbox_goes_on(
    fence: Servers, tmp_path: Path
) -> None:
    with running(tmp_path / "state", **json.loads(fence.config.read_text()), audit_max_bytes=16 << 20) as here:
        here.run("secret", "set", "api-token", input=SECRET, check=True)
        code, report, output = here.report("--policy", str(fence.policy), "--", "python3", "-c", FILL, timeout=300)
        assert code == 0, (output, report["error"], report["reason"])
        refused, first, allowed, last = output.split()
        assert (first, last) == ("503", "503"), "what is allowed is refused too when it cannot be recorded"
        assert int(refused) > 100
        assert len(fence.api.requests) == int(allowed)
        every_receipt(report)
        assert report["audit"]["verified"]  # type: ignore[index]
        assert here.run("audit", "verify", str(report["sandbox_id"])).returncode == 0
        fresh = here.run("run", "--policy", "fence-test", "--", "curl", "-sS", f"https://{API}/item", check=True)
        assert len(fence.api.requests) == int(allowed) + 1, fresh.stdout


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[Bao]:
    directory = tmp_path / "bao"
    directory.mkdir()
    server = Bao(directory)
    server.put("api-token", SECRET)
    yield server
    server.close()


def credential(report: dict[str, Any]) -> dict[str, Any]:
    [found] = [receipt for receipt in report["receipts"] if receipt["resource"] == "credential"]
    return dict(found)


@contextmanager
def sealed(bao: Bao) -> Iterator[None]:
    """The store is sealed for the length of the block."""
    key = re.search(r"Unseal Key: (\S+)", bao.log.read_text())
    assert key
    bao.root.sys.seal()
    try:
        yield
    finally:
        bao.root.sys.submit_unseal_key(key[1])


def test_a_secret_from_openbao_is_injected_refused_when_sealed_and_its_token_revoked(
    fence: Servers, bao: Bao, tmp_path: Path
) -> None:
    key = tmp_path / "jwt.pem"
    key.write_bytes(bao.pem)
    key.chmod(0o600)
    secrets = {
        "kind": "openbao",
        "openbao": {"address": bao.address, "reaper_role": "paddock-reaper", "timeout_s": 2.0, "cache_s": 1.0},
        "jwt_key_file": str(key),
    }
    with running(tmp_path / "state", **json.loads(fence.config.read_text()), secrets=secrets) as here:
        here.run("policy", "apply", str(fence.policy), check=True)
        argv = ["curl", "-sS", f"https://{API}/item"]
        code, report, _ = here.report("--policy", "fence-test", "--", *argv)
        assert code == 0
        assert fence.api.requests[-1].headers["authorization"] == [f"Bearer {SECRET}"]
        assert credential(report)["gone"] == "proved"
        assert credential(report)["checked_by"] == "the store refuses the token (403)"
        assert not any(report["sandbox_id"] in token["display_name"] for token in bao.tokens())

        with Paddock.connect(str(here.info["temporal"])) as paddock, paddock.sandbox(policy="fence-test") as box:
            box.run(argv).result()
            assert len(fence.api.requests) == 2
            sandbox = box.status().sandbox_id
            assert any(sandbox in token["display_name"] for token in bao.tokens())
            with sealed(bao):
                time.sleep(1.1)  # what the broker may keep of the first answer is too old now
                refusal = box.run(argv)
                assert "secret-unavailable" in "".join(refusal.output())
                refusal.result()
                assert len(fence.api.requests) == 2, "a request went out without its credential"
        assert not any(sandbox in token["display_name"] for token in bao.tokens())

        with sealed(bao):
            code, report, _ = here.report("--policy", "fence-test", "--", *argv)
        assert (code, report["error"]["kind"]) == (125, "secret-unavailable")  # type: ignore[index]
        assert report["error"]["remedy"]  # type: ignore[index]
        every_receipt(report)
        assert len(fence.api.requests) == 2
