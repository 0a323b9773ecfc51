"""Seeded faults on a real system: nothing leaks, nothing acknowledged is lost, and what was not killed goes on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.__main__ import SEED
from tests.faults.driver import Driver, driving, logs_here
from tests.faults.table import sums, table, words

RUNS = int(os.environ.get("PADDOCK_FAULT_RUNS", "40"))
FIRST = int(os.environ.get("PADDOCK_FAULT_SEED", str(SEED)))
pytestmark = [pytest.mark.vm, pytest.mark.kill]


@pytest.fixture(scope="module")
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """One system for all runs; its table is printed at the end."""
    try:
        with driving(logs_here()) as here:
            yield here
    finally:
        capture = request.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\n\n{table(here.verdicts)}\n")
        if file := os.environ.get("PADDOCK_FAULT_JSON"):
            Path(file).write_text(json.dumps(sums(here.verdicts), indent=1))


@pytest.mark.parametrize("number", range(FIRST, FIRST + RUNS))
def test_no_fault_leaks_loses_or_breaks_anything(number: int, driver: Driver) -> None:
    verdict = driver.run(number)
    assert verdict.passed, f"\n{words(verdict)}"
