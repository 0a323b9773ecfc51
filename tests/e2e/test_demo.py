"""`make demo` as a newcomer runs it: everything held, the report says so, and nothing is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.vm


def test_the_demo_holds_all_that_it_promises_and_leaves_nothing_behind() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((ROOT / "build/demo/report.json").read_text())
    assert report["secret_seen_in_guest"] is False
    assert report["leftovers"] == []
    assert report["outcome"] == "succeeded"
    assert report["audit"]["verified"] is True
    assert all(receipt["gone"] == "proved" for receipt in report["receipts"])
    assert any(denial["host"] == "paste.demo.example" for denial in report["denied"])
