"""The fence as a whole: a credential that works and is nowhere in the sandbox's reach, and hosts refused untouched."""

import asyncio
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import PADDOCK, Up
from tests.e2e.fence import API, OTHER, SECRET, Servers, servers
from tests.observer.decoys import decoy_value, guest_command
from tests.observer.history import histories
from tests.observer.processes import guests
from tests.observer.secrets import Places, find_secret

pytestmark = pytest.mark.vm
ECHOES = (
    "raw",
    "base64-0",
    "base64-1",
    "base64-2",
    "percent",
    "percent-all",
    "split",
    "split-writes",
    "header",
    "location",
)


@pytest.fixture(scope="module")
def fence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("fence")) as here:
        yield here


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, fence: Servers) -> Iterator[Up]:
    here = Up(tmp_path_factory.mktemp("state"), fence.config).start()
    here.run("secret", "set", "api-token", input=SECRET, check=True)
    here.run("policy", "apply", str(fence.policy), check=True)
    here.run("policy", "apply", str(fence.wider), check=True)
    yield here
    assert here.stop() == 0


def holding(up: Up, script: str) -> "tuple[subprocess.Popen[str], str]":
    """A sandbox that ran `script`, with what that printed, and that stays until it is told to end."""
    argv = [PADDOCK, "run", "--quiet", "--state", str(up.state), "--policy", "fence-test", "--", "sh", "-c"]
    held = subprocess.Popen([*argv, f"{script}; echo DONE; sleep 120"], stdout=subprocess.PIPE, text=True)
    assert held.stdout
    lines = []
    for line in held.stdout:
        if line == "DONE\n":
            return held, "".join(lines)
        lines.append(line)
    raise AssertionError("".join(lines))


def places(up: Up) -> Places:
    """Everything in the guest's reach, and everything that is written down."""
    kept = tuple(path for path in up.state.rglob("*") if path.is_file() and path.name != "secrets.key")
    return Places(memory=guests(), everywhere=True, files=kept, texts=asyncio.run(histories(str(up.info["temporal"]))))


def test_the_credential_reaches_its_host_and_is_nowhere_else(up: Up, fence: Servers) -> None:
    calls = "; ".join(f"curl -sS -i https://{API}/echo/{how}" for how in ECHOES)
    held, seen = holding(up, f"({calls}) > /tmp/seen 2>&1; cat /tmp/seen")
    try:
        got = [request.headers["authorization"] for request in fence.api.requests]
        assert got == [[f"Bearer {SECRET}"]] * len(ECHOES), seen
        assert SECRET not in seen
        assert "[scrubbed]" in seen
        scan = find_secret(SECRET.encode(), places(up))
        assert not scan.found, [str(finding) for finding in scan.found]
        assert scan.read["memory"] > 50 << 20
        assert scan.read["file"] > 0
    finally:
        held.terminate()
        held.wait(60)


def test_the_same_scan_finds_a_decoy_in_the_guest(up: Up) -> None:
    held, _ = holding(up, shlex.join(guest_command("e2e")))
    try:
        found = find_secret(decoy_value("e2e"), places(up)).found
        assert any(finding.place == "memory" for finding in found)
    finally:
        held.terminate()
        held.wait(60)


def test_a_refused_host_counts_no_connection_and_an_allowed_one_does(up: Up, fence: Servers) -> None:
    refused = up.run("run", "--policy", "fence-test", "--json", "--", "curl", "-sS", f"https://{OTHER}/")
    assert fence.other.connections == 0
    assert OTHER in refused.stdout  # in the report's denials
    allowed = up.run("run", "--policy", "fence-wider", "--", "curl", "-sS", f"https://{OTHER}/", check=True)
    assert fence.other.connections == 1
    assert "plain:" in allowed.stdout


def test_a_write_that_no_rule_allows_is_refused_with_words_for_an_agent(up: Up, fence: Servers) -> None:
    before = len(fence.api.requests)
    argv = ["curl", "-sS", "-X", "POST", f"https://{API}/item"]
    done = up.run("run", "--policy", "fence-test", "--", *argv)
    assert "do not retry by other means" in done.stdout
    assert len(fence.api.requests) == before


def test_without_its_store_a_secret_is_never_passed_without(up: Up, fence: Servers) -> None:
    up.run("secret", "rm", "api-token", check=True)
    before = len(fence.api.requests)
    try:
        done = up.run("run", "--policy", "fence-test", "--", "curl", "-sS", f"https://{API}/item")
        assert "secret-unavailable" in done.stdout
        assert len(fence.api.requests) == before
    finally:
        up.run("secret", "set", "api-token", input=SECRET, check=True)


def test_the_sealed_chain_verifies_and_one_changed_byte_does_not(up: Up) -> None:
    _, report, _ = up.report("--policy", "fence-test", "--", "curl", "-sS", f"https://{API}/item")
    sandbox = str(report["sandbox_id"])
    assert up.run("audit", "verify", sandbox).returncode == 0
    chain = next(up.state.glob(f"host/audit/sealed/{sandbox}/chain.ndjson"))
    whole = chain.read_bytes()
    chain.write_bytes(whole.replace(b'"allow"', b'"allov"', 1))
    broken = up.run("audit", "verify", sandbox)
    assert broken.returncode == 1
    assert "edited" in broken.stdout
