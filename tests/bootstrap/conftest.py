"""One real OpenBao for all tests here, and one environment of each cloud in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bootstrap.rig import CLOUDS, Cloud, Environment, Store

Environments = Callable[[str], Environment]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    server = Store(tmp_path_factory.mktemp("bao"))
    yield server
    server.close()


@pytest.fixture
def fresh_store(tmp_path: Path) -> Iterator[Store]:
    server = Store(tmp_path)
    yield server
    server.close()


@pytest.fixture(scope="session")
def environments(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    made: dict[str, Environment] = {}

    def environment(cloud: str) -> Environment:
        if cloud not in made:
            made[cloud] = Environment(store, Cloud(cloud), tmp_path_factory.mktemp(cloud))
        return made[cloud]

    yield environment
    for one in made.values():
        one.cloud.close()


@pytest.fixture(params=CLOUDS)
def env(request: pytest.FixtureRequest, environments: Environments) -> Environment:
    """Each cloud in turn."""
    return environments(request.param)


@pytest.fixture
def gcp(environments: Environments) -> Environment:
    """Where the cloud makes no difference."""
    return environments("gcp")
