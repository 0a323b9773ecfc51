"""`paddock host join`: what keeps a machine from being a host is said before anything starts; else it becomes one."""

import asyncio
import base64
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from paddock.cli.app import app
from paddock.embedded import assets
from paddock.host.config import HostConfig, SecretStore
from tests.cli.conftest import Ended, Program, alone
from tests.cli.test_host import until_said
from tests.cli.test_pool import said
from tests.workflows.conftest import client
from tests.workflows.grounds import Ground
from tests.workflows.pools import ground, quick

__all__ = ["alone", "client", "ground", "quick"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name: a host has sockets there."""
    made = Path(tempfile.mkdtemp(prefix="paddock-join-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def written(place: Path, **change: Any) -> str:
    """A whole configuration of a host, but for what is changed."""
    found = assets.load(assets.cache_dir())
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    (place / "secrets.key").write_bytes(secrets.token_bytes(32))
    config = HostConfig(
        environment="own",
        host="metal-1",
        state=str(place / "host"),
        cache=str(assets.cache_dir()),
        temporal="127.0.0.1:1",
        slots=2,
        secrets=SecretStore(file=place / "secrets", key_file=place / "secrets.key"),
        policy_public_key=base64.b64encode(key).decode(),
        kernel=found.kernel,
        qemu=found.qemu,
    )
    file = place / "host.json"
    file.write_text(json.dumps(config.model_dump(mode="json") | change))
    return str(file)


async def join(*argv: str) -> Ended:
    ended = await asyncio.to_thread(CliRunner().invoke, app, ["host", "join", *argv])
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slots": 0}, "slots"),
        ({"speed": "high"}, "speed"),
        ({"host": "Metal 1"}, "host.json: host"),
        ({"environment": "a/b"}, "host.json: environment"),
        ({"relay": "ws://127.0.0.1:1", "relay_token_file": "/nowhere/token"}, "host.json: relay_token_file"),
    ],
)
async def test_a_wrong_configuration_is_refused_and_the_field_is_named(
    place: Path, change: dict[str, Any], words: str
) -> None:
    ended = await join(written(place, **change))
    assert ended.code == 2
    assert words in " ".join(ended.err.split())
    assert not (place / "host").exists(), "nothing was started"


async def test_a_configuration_that_is_not_there_is_refused(place: Path) -> None:
    ended = await join(str(place / "none.json"), "--json")
    assert ended.code == 2
    assert "none.json" in json.loads(ended.out)["error"]["field"]


async def test_what_keeps_a_machine_from_being_a_host_is_said_with_what_to_do(place: Path) -> None:
    (place / "cache").mkdir()
    file = written(place, qemu="/nowhere/qemu", cache=str(place / "cache"))
    ended = await join(file)
    assert ended.code == 1
    assert "QEMU: /nowhere/qemu does not run\n  → apt-get install" in ended.err
    assert "guest: " in ended.err
    assert "make setup" in ended.err
    assert "Temporal" not in ended.err, "a host needs no server of its own"
    told = json.loads((await join(file, "--json")).out)
    assert (told["able"], [one["name"] for one in told["findings"]]) == (False, ["QEMU", "guest"])
    assert not (place / "host").exists(), "nothing was started"


@pytest.mark.vm
async def test_a_machine_joins_serves_is_drained_and_stays(ground: Ground, alone: Program, place: Path) -> None:
    file = written(place, environment=ground.environment, temporal=ground.address)
    process = await alone.start("host", "join", file)
    try:
        ls = ("host", "ls", "--environment", ground.environment)
        await until_said(ground, f"metal-1\t{ground.environment}\tready\t2\t0\t", *ls)
        assert b"paddock.host" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "in place of the command itself"
        drained = await said(ground, "host", "drain", ground.environment, "metal-1", "--wait", "0", "--follow")
        assert (drained.code, process.returncode) == (0, None)
        assert "the machine itself stays" in drained.err
    finally:
        os.kill(process.pid, signal.SIGTERM)
        ended = await alone.end(process)
    assert ended.code == 0
