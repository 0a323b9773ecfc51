"""One template a run."""

from collections.abc import Iterator

import pytest

from tests.microvm.machine import Lab, build_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = build_lab(tmp_path_factory.mktemp("microvm"))
    yield made
    made.driver.close()
