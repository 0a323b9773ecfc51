"""Recorders that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.audit.rig import Keeper


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Keeper]]:
    keepers: list[Keeper] = []

    def make(**config: Any) -> Keeper:
        keepers.append(Keeper(tmp_path / "audit", **config))
        return keepers[-1]

    yield make
    for keeper in keepers:
        keeper.close()
