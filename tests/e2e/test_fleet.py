"""`make demo-fleet` as a newcomer runs it: four clouds, real microVMs on each, and nothing is left of any."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an emulated machine is a namespace of process ids: needs root"),
]


def test_a_sandbox_on_each_cloud_from_no_host_to_the_last_receipt() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.fleet"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((ROOT / "build/demo-fleet/report.json").read_text())
    assert set(report["environments"]) == {"aws", "azure", "gcp", "onprem"}
    assert report["leftovers"] == []
    for name, told in report["environments"].items():
        assert told["sandbox"]["outcome"] == "succeeded", name
        assert told["sandbox"]["audit"]["verified"], name
        assert {one["resource"] for one in told["host_receipts"]} >= {"host"}, name
        assert {one["gone"] for one in told["host_receipts"]} == {"proved"}, name
        assert {"host.create", "host.boot", "host.prove", "host.terminate"} <= set(told["steps_ms"]), name
        assert sum(report["api_calls"][name].values()) > 3, name
