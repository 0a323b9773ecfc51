"""The broker as a process, over the embedded store: only what a signed policy binds, and nothing after the end."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.contracts.errors import ErrorKind
from paddock.secrets import SecretUnavailable
from paddock.secrets.client import SecretsClient
from tests.secrets.rig import Keeper, policy

USE = {"rule": "api0", "host": "api.example.com", "port": 443, "method": "GET", "path": "/repos/a"}


async def refused(client: SecretsClient, ref: str = "vcs-token", **change: object) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        await client.fetch(ref, **{**USE, **change})  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.SECRET_UNAVAILABLE
    return caught.value.info.message


async def test_a_sandbox_gets_the_secret_that_its_policy_binds(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy())
    secret = await client.fetch("vcs-token", **USE)
    assert secret.value == b"ghp_real"
    assert secret.expires_at > datetime.now(UTC).timestamp()
    assert "ghp_real" not in repr(secret)


@pytest.mark.parametrize(
    "change",
    [
        {"ref": "other"},
        {"rule": "other"},
        {"host": "evil.example.com"},
        {"port": 80},
        {"method": "POST"},
        {"path": "/user"},
        {"path": "/repos/../user"},
    ],
    ids=str,
)
async def test_any_other_use_of_a_secret_is_refused(embedded: Keeper, change: dict[str, object]) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy())
    assert "does not give" in await refused(client, **change)  # type: ignore[arg-type]
    assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"


async def test_without_a_policy_or_with_one_that_is_not_for_this_sandbox_nothing_is_given(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    assert "no policy" in await refused(client)
    foreign = policy("sb-2")
    forged = policy().replace("A", "B", 1)
    for signed in (foreign, forged, "", "x.y"):
        with pytest.raises(SecretUnavailable):
            await client.open(signed)
        assert "no policy" in await refused(client)


async def test_a_policy_signed_by_another_key_is_refused(embedded: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.secrets.rig.POLICY_KEY", Ed25519PrivateKey.generate())
    client = SecretsClient(embedded.adopt())
    with pytest.raises(SecretUnavailable, match="signature"):
        await client.open(policy())


async def test_a_policy_that_went_stale_gives_nothing_any_more(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy(lives_s=0.5))
    deadline = datetime.now(UTC) + timedelta(seconds=5)

    async def use_on() -> None:
        while datetime.now(UTC) < deadline:
            await client.fetch("vcs-token", **USE)

    with pytest.raises(SecretUnavailable, match="stale"):
        await use_on()


async def test_a_secret_that_is_missing_in_the_store_is_said_by_name(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy(refs=("nowhere",)))
    assert await refused(client, "nowhere") == "secret nowhere is not in the store"


async def test_after_revoke_nothing_is_given_and_that_was_tried(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt(), patience_s=0.2)
    await client.open(policy())
    await client.fetch("vcs-token", **USE)
    assert embedded.revoke() == {"gone": "proved", "checked_by": "the session was tried again and refused"}
    assert embedded.revoke()["gone"] == "proved"
    assert "gone" in await refused(client), "the broker closed the sandbox's socket"


async def test_a_large_policy_goes_in_pieces(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    signed = policy(rules=900)
    assert len(signed) > 150_000, "more than one packet takes"
    await client.open(signed)
    assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"


async def test_a_replaced_broker_gets_the_policy_again_and_unanswered_requests_are_answered(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy(rules=900))
    embedded.kill()
    waiting = asyncio.ensure_future(client.fetch("vcs-token", **USE))
    await asyncio.sleep(0)
    embedded.start()
    client.replace(embedded.adopt())
    assert (await waiting).value == b"ghp_real"


async def test_a_broker_that_is_not_replaced_in_time_releases_every_waiter(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt(), patience_s=0.3)
    await client.open(policy())
    embedded.kill()
    said = await asyncio.gather(*(refused(client) for _ in range(5)))
    assert all("not replaced" in words for words in said)


async def test_garbage_cuts_off_one_supervisor_only(embedded: Keeper) -> None:
    good = SecretsClient(embedded.adopt())
    await good.open(policy())
    for garbage in (b"\xff", b"{}", b'{"op":"fetch","id":1}', b'1},"x":{', b"[" * 9000):
        bad = embedded.adopt("sb-bad")
        bad.send(garbage)
        assert bad.recv(100) == b""
    assert (await good.fetch("vcs-token", **USE)).value == b"ghp_real"


async def test_sweep_ends_the_sandboxes_that_do_not_live(embedded: Keeper) -> None:
    dead, living = SecretsClient(embedded.adopt("sb-1"), patience_s=0.2), SecretsClient(embedded.adopt("sb-2"))
    await dead.open(policy("sb-1"))
    await living.open(policy("sb-2"))
    swept = embedded.ask("sweep", alive=["sb-2"])
    assert list(swept["revoked"]) == ["sb-1"]
    assert swept["revoked"]["sb-1"]["gone"] == "proved"
    assert (await living.fetch("vcs-token", **USE)).value == b"ghp_real"
    assert "gone" in await refused(dead)
    assert embedded.ask("sweep", alive=["sb-2"]) == {"revoked": {}}


async def test_the_broker_ends_once_its_keeper_and_all_supervisors_are_gone(embedded: Keeper) -> None:
    client = SecretsClient(embedded.adopt())
    await client.open(policy())
    embedded.control.close()
    assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"
    client.close()
    assert os.waitpid(embedded.pid, 0)[1] == 0
    embedded.pid = 0


def test_no_value_is_on_disk_but_sealed(embedded: Keeper, tmp_path: Path) -> None:
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"ghp_real" not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0, path
    assert json.loads((tmp_path / "secrets" / "store.json").read_text())["secrets"]["vcs-token"]["sealed"]
