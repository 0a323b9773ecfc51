"""Brokers and stores that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.secrets.broker import BrokerConfig, StoreCredentials
from paddock.secrets.embedded import EmbeddedStore
from paddock.secrets.openbao import OpenBaoConfig
from tests.secrets.rig import Bao, Keeper

FILE_KEY = b"k" * 32
Brokers = Callable[..., Keeper]


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    server = Bao(tmp_path_factory.mktemp("bao"))
    yield server
    server.close()


@pytest.fixture
def fresh_bao(tmp_path: Path) -> Iterator[Bao]:
    server = Bao(tmp_path)
    yield server
    server.close()


@pytest.fixture
def brokers() -> Iterator[list[Keeper]]:
    running: list[Keeper] = []
    yield running
    for keeper in running:
        keeper.close()


@pytest.fixture
def embedded(tmp_path: Path, brokers: list[Keeper]) -> Keeper:
    file = tmp_path / "secrets" / "store.json"
    EmbeddedStore(file, FILE_KEY).put("vcs-token", b"ghp_real")
    config = BrokerConfig(state_dir=tmp_path / "broker", store="embedded", file=file)
    brokers.append(Keeper(config, StoreCredentials(file_key=FILE_KEY)))
    return brokers[-1]


@pytest.fixture
def with_bao(tmp_path: Path, brokers: list[Keeper]) -> Callable[..., Keeper]:
    def make(server: Bao, **more: Any) -> Keeper:
        fields = {"address": server.address, "reaper_role": "paddock-reaper", "timeout_s": 2.0, **more}
        config = BrokerConfig(state_dir=tmp_path / "broker", store="openbao", openbao=OpenBaoConfig(**fields))
        brokers.append(Keeper(config, StoreCredentials(jwt_key=server.pem)))
        return brokers[-1]

    return make
