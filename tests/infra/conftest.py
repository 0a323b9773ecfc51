"""One Terraform with its stand-in plugins for all tests here; without its tools they are skipped, and say why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra import rig
from tests.infra.schemas import NotToBeHad


def installed(part: str) -> Path:
    """A part of packaging/terraform.sh, or a skip in its own words."""
    try:
        return rig.install(part)
    except rig.NotHere as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> rig.Terraform:
    made = rig.Terraform(installed("tools"), tmp_path_factory.mktemp("infra"))
    try:
        made.stand_in()
    except NotToBeHad as why:
        pytest.skip(f"no provider schemas for Terraform: {why}")
    return made


@pytest.fixture
def copy_of(terraform: rig.Terraform, tmp_path: Path) -> Callable[[str], Path]:
    """A folder of infra/terraform that a test may spoil, with the modules beside it."""

    def copy(folder: str) -> Path:
        return terraform.copy(folder, tmp_path)

    return copy


@pytest.fixture(scope="session")
def policy() -> Path:
    return installed("policy")


@pytest.fixture(scope="session")
def ground(terraform: rig.Terraform) -> Callable[[str], rig.Ground]:
    """What a module would make for the example in its own tests, as the mocked apply of run `ground` says."""
    return terraform.applied
