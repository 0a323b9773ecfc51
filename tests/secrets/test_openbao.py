"""OpenBao, the real server: one token a sandbox, seen to be refused at the end, and every way the store can fail."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.secrets import SecretUnavailable
from paddock.secrets.accessors import Accessors
from paddock.secrets.client import SecretsClient
from paddock.secrets.openbao import OpenBaoConfig, OpenBaoStore, load_signing_key
from paddock.secrets.store import Forbidden
from tests.secrets.rig import Bao, Keeper, policy, until

USE = {"rule": "api0", "host": "api.example.com", "port": 443, "method": "GET", "path": "/repos/a"}
WithBao = Callable[..., Keeper]


async def opened(keeper: Keeper, sandbox: str = "sb-1", refs: tuple[str, ...] = ("vcs-token",)) -> SecretsClient:
    client = SecretsClient(keeper.adopt(sandbox))
    await client.open(policy(sandbox, refs))
    return client


async def refusal(client: SecretsClient, ref: str = "vcs-token", **change: object) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        await client.fetch(ref, **{**USE, **change})  # type: ignore[arg-type]
    return caught.value.info.message


def store_of(bao: Bao, **more: object) -> OpenBaoStore:
    config = OpenBaoConfig.model_validate({"address": bao.address, "timeout_s": 2.0, **more})
    return OpenBaoStore(config, load_signing_key(bao.pem), "h1")


async def test_a_sandbox_has_one_token_and_revoke_is_seen_to_be_refused(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao)
    client = await opened(keeper)
    for _ in range(3):
        assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"
    (token,) = fresh_bao.tokens()
    assert token["display_name"] == "jwt-sb-1"
    assert Accessors(keeper.config.state_dir).of("sb-1") == (token["accessor"],)
    assert keeper.revoke() == {"gone": "proved", "checked_by": "the store refuses the token (403)"}
    assert fresh_bao.tokens() == []
    assert Accessors(keeper.config.state_dir).sandboxes() == set()


async def test_a_policy_without_secrets_opens_no_token(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao)
    await opened(keeper, refs=())
    assert fresh_bao.tokens() == []
    assert keeper.revoke() == {"gone": "proved", "checked_by": "no store token of this sandbox is out"}


async def test_a_new_broker_revokes_what_the_one_before_had_opened(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao)
    living, _ = await opened(keeper, "sb-1"), await opened(keeper, "sb-2")
    before = {token["accessor"] for token in fresh_bao.tokens()}
    assert len(before) == 2
    keeper.kill()
    keeper.start()
    living.replace(keeper.adopt("sb-1"))
    assert (await living.fetch("vcs-token", **USE)).value == b"ghp_real"
    swept = keeper.ask("sweep", alive=["sb-1"])["revoked"]
    assert swept["sb-2"] == {"gone": "proved", "checked_by": "the store no longer knows the token's accessor"}
    left = [token for token in fresh_bao.tokens() if token["display_name"] != "jwt-paddock-reaper-local"]
    assert len(left) == 1, "the sandbox that lives has a new token, its old one is gone too"
    assert left[0]["accessor"] not in before
    assert keeper.revoke("sb-1")["gone"] == "proved"


async def test_without_a_reaper_a_token_of_an_earlier_broker_stays_unproved(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao, reaper_role="")
    await opened(keeper)
    keeper.kill()
    keeper.start()
    answer = keeper.revoke()
    assert answer["gone"] == "unproved"
    assert "reaper_role" in answer["checked_by"]
    assert Accessors(keeper.config.state_dir).of("sb-1"), "its record stays until it is proved gone"


def test_a_reaper_without_the_right_to_look_does_not_claim_a_proof(fresh_bao: Bao) -> None:
    store = store_of(fresh_bao, reaper_role="paddock-reaper")
    session = store.open("sb-1")
    fresh_bao.root.sys.create_or_update_policy(
        "reaps", 'path "auth/token/revoke-accessor" { capabilities = ["update"] }'
    )
    assert not store.end_by_accessor(session.accessor).proved
    fresh_bao.root.sys.delete_policy("reaps")
    with pytest.raises(SecretUnavailable):
        store.end_by_accessor(store.open("sb-1").accessor)


async def test_a_token_revoked_behind_our_back_is_replaced_once(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao, cache_s=0)
    client = await opened(keeper)
    first = fresh_bao.tokens()[0]["accessor"]
    fresh_bao.root.auth.token.revoke_accessor(first)
    assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"
    (token,) = fresh_bao.tokens()
    assert Accessors(keeper.config.state_dir).of("sb-1") == (token["accessor"],)


async def test_a_secret_out_of_the_roles_reach_does_not_make_us_log_in_again_and_again(
    fresh_bao: Bao, with_bao: WithBao
) -> None:
    fresh_bao.root.sys.create_or_update_policy("reads", 'path "secret/data/paddock/other" { capabilities = ["read"] }')
    keeper = with_bao(fresh_bao)
    client = await opened(keeper)
    assert "403" in await refusal(client)
    tokens = {token["accessor"] for token in fresh_bao.tokens()}
    assert "moment ago" in await refusal(client)
    assert {token["accessor"] for token in fresh_bao.tokens()} == tokens
    assert len(tokens) == 1


async def test_a_missing_secret_and_one_without_its_field_are_said(bao: Bao, with_bao: WithBao) -> None:
    bao.root.secrets.kv.v2.create_or_update_secret("paddock/odd", secret={"token": "x"})
    bao.put("gone", "x")
    bao.root.secrets.kv.v2.delete_latest_version_of_secret("paddock/gone")
    keeper = with_bao(bao)
    client = await opened(keeper, refs=("vcs-token", "odd", "none", "gone"))
    assert "404" in await refusal(client, "none", rule="api2", host="api2.example.com")
    assert "404" in await refusal(client, "gone", rule="api3", host="api3.example.com")
    assert "no text in its field 'value'" in await refusal(client, "odd", rule="api1", host="api1.example.com")


async def test_a_sealed_store_denies_and_says_so_and_a_lease_that_holds_is_still_good(
    fresh_bao: Bao, with_bao: WithBao
) -> None:
    fresh_bao.put("second", "x")
    keeper = with_bao(fresh_bao)
    client = await opened(keeper, refs=("vcs-token", "second"))
    await client.fetch("vcs-token", **USE)
    fresh_bao.root.sys.seal()
    assert "sealed" in await refusal(client, "second", rule="api1", host="api1.example.com")
    assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"
    assert keeper.revoke()["gone"] == "unproved"
    with pytest.raises(SecretUnavailable, match="sealed"):
        await opened(keeper, "sb-2")


async def test_a_store_that_is_down_denies_and_says_so(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao, cache_s=0)
    client = await opened(keeper)
    fresh_bao.close()
    assert "can't be reached" in await refusal(client)
    assert keeper.revoke()["gone"] == "unproved"


async def test_a_rate_limit_denies_and_says_so(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao, cache_s=0)
    client = await opened(keeper)
    fresh_bao.root.write_data("sys/quotas/rate-limit/q1", data={"rate": 1, "interval": "60s", "path": "secret/"})
    await client.fetch("vcs-token", **USE)
    assert "429" in await refusal(client)


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for sock in held:
                sock.close()


async def test_a_store_that_never_answers_is_given_up_and_does_not_hold_the_broker(
    fresh_bao: Bao, with_bao: WithBao
) -> None:
    with silent_server() as address:
        keeper = with_bao(fresh_bao, address=address, timeout_s=1.0)
        client = SecretsClient(keeper.adopt())
        opening = asyncio.ensure_future(client.open(policy()))
        await asyncio.sleep(0)
        other = SecretsClient(keeper.adopt("sb-2"))
        start = time.monotonic()
        await other.open(policy("sb-2", refs=()))
        assert time.monotonic() - start < 0.5, "another sandbox is answered meanwhile"
        with pytest.raises(SecretUnavailable, match="in time"):
            await opening


async def test_one_sandbox_cannot_queue_without_end(fresh_bao: Bao, with_bao: WithBao) -> None:
    with silent_server() as address:
        keeper = with_bao(fresh_bao, address=address, timeout_s=1.0)
        client = SecretsClient(keeper.adopt())
        opening = asyncio.ensure_future(client.open(policy()))
        await asyncio.sleep(0)
        asked = [asyncio.ensure_future(client.fetch("vcs-token", **USE)) for _ in range(200)]
        first = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert "already wait" in str(first[0].pop().exception())
        client.close()
        await asyncio.gather(opening, *asked, return_exceptions=True)


def test_a_token_is_renewed_before_it_ends_and_not_beyond_its_last_day(fresh_bao: Bao) -> None:
    fresh_bao.role("paddock-sandbox", "reads", token_ttl="3s", token_explicit_max_ttl="6s")
    session = store_of(fresh_bao).open("sb-1")
    due = session.renew_at()
    assert due is not None
    assert 0.9 < due - time.time() <= 2.0
    until(lambda: time.time() >= due)
    session.renew()
    until(lambda: time.time() >= due + 1.3)
    assert session.read("vcs-token").value == b"ghp_real", "it outlives its first three seconds"

    def refused() -> bool:
        try:
            session.read("vcs-token")
        except Forbidden:
            return True
        return False

    until(refused, 8)


async def test_the_broker_renews_by_itself(fresh_bao: Bao, with_bao: WithBao) -> None:
    fresh_bao.role("paddock-sandbox", "reads", token_ttl="2s", token_explicit_max_ttl="60s")
    keeper = with_bao(fresh_bao, cache_s=0)
    client = await opened(keeper)
    (token,) = fresh_bao.tokens()
    born = time.monotonic()
    while time.monotonic() - born < 4:
        assert (await client.fetch("vcs-token", **USE)).value == b"ghp_real"
        await asyncio.sleep(0.2)
    assert [t["accessor"] for t in fresh_bao.tokens()] == [token["accessor"]], "the same token all the time"


def test_ed25519_signs_the_logins_as_well(tmp_path: Path) -> None:
    server = Bao(tmp_path, Ed25519PrivateKey.generate())
    try:
        assert store_of(server).open("sb-1").read("vcs-token").value == b"ghp_real"
    finally:
        server.close()


def test_a_store_whose_certificate_is_not_trusted_gets_no_login(tmp_path: Path) -> None:
    server = Bao(tmp_path, tls=True)
    try:
        with pytest.raises(SecretUnavailable, match="certificate"):
            store_of(server).open("sb-1")
        session = store_of(server, ca=str(server.ca)).open("sb-1")
        assert session.read("vcs-token").value == b"ghp_real"
        assert session.end().proved
    finally:
        server.close()


def test_a_login_with_a_key_that_the_store_does_not_know_is_refused(bao: Bao) -> None:
    store = OpenBaoStore(OpenBaoConfig(address=bao.address), Ed25519PrivateKey.generate(), "h1")
    with pytest.raises(SecretUnavailable, match="log a sandbox in"):
        store.open("sb-1")


def test_plain_http_to_a_store_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        OpenBaoConfig(address="http://store.example.com:8200")


async def test_no_value_and_no_token_is_in_the_brokers_files(fresh_bao: Bao, with_bao: WithBao) -> None:
    keeper = with_bao(fresh_bao)
    await (await opened(keeper)).fetch("vcs-token", **USE)
    files = [path for path in keeper.config.state_dir.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"ghp_real" not in path.read_bytes()
        assert b"s." not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
