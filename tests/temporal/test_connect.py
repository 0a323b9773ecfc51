"""Connecting to Temporal: every way that fails says what to do, and an address takes nothing from the environment."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.temporal import connect as module
from paddock.temporal.connect import configured, connect


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been connected to."""
    calls: list[dict[str, Any]] = []

    async def call(where: str, **options: Any) -> None:
        calls.append({"where": where, **options})

    monkeypatch.setattr(module.Client, "connect", call)
    return calls


async def refused(*where: Any, **more: Any) -> PaddockError:
    with pytest.raises(PaddockError) as caught:
        await asyncio.wait_for(connect(*where, **more), 30)
    return caught.value


async def test_with_nothing_configured_it_says_how_to_start_one() -> None:
    wrong = await refused()
    assert wrong.kind is ErrorKind.SET_UP
    assert "paddock up" in wrong.info.remedy
    assert configured() == ""


async def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        wrong = await refused(address)
    assert wrong.kind is ErrorKind.UNREACHABLE
    assert wrong.info.field == address
    assert address in wrong.info.message
    assert wrong.info.remedy


async def test_an_address_that_is_none_is_refused_without_a_traceback() -> None:
    assert (await refused("not an address")).kind is ErrorKind.UNREACHABLE


async def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "temporal.toml").write_text('[profile.default]\naddress = "here:1"\n')
    wrong = await refused(profile="absent")
    assert (wrong.kind, wrong.info.field) == (ErrorKind.SET_UP, "absent")
    assert wrong.info.remedy


async def test_a_file_that_is_no_toml_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "temporal.toml").write_text("[profile.default\n")
    assert (await refused()).kind is ErrorKind.SET_UP
    with pytest.raises(PaddockError):
        configured()


async def test_a_profile_gives_its_address_and_its_namespace(tmp_path: Path, dialled: list[dict[str, Any]]) -> None:
    (tmp_path / "temporal.toml").write_text('[profile.work]\naddress = "here:1"\nnamespace = "team"\n')
    assert configured("work") == "here:1"
    await connect(profile="work")
    await connect(profile="work", namespace="other")
    assert [(call["where"], call["namespace"]) for call in dialled] == [("here:1", "team"), ("here:1", "other")]


async def test_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch, dialled: list[dict[str, Any]]) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "there:2")
    await connect()
    assert dialled[0]["where"] == "there:2"


async def test_an_explicit_address_gets_no_key_that_was_meant_for_another(
    monkeypatch: pytest.MonkeyPatch, dialled: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "there:2")
    monkeypatch.setenv("TEMPORAL_API_KEY", "key-of-there")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "theirs")
    await connect()
    await connect("stranger:3")
    assert dialled[0]["api_key"] == "key-of-there"
    assert dialled[1]["where"] == "stranger:3"
    assert not dialled[1]["api_key"]
    assert not dialled[1]["tls"]
    assert dialled[1]["namespace"] != "theirs"


async def test_every_client_has_the_plugin(dialled: list[dict[str, Any]]) -> None:
    await connect("here:1", identity="me")
    assert [one.name() for one in dialled[0]["plugins"]] == ["paddock"]
    assert dialled[0]["identity"] == "me"
