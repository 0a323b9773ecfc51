"""A supervisor that hangs cannot keep its sandbox: it is ended without being asked."""

import os
import signal

import pytest

from tests.e2e.conftest import Up
from tests.e2e.test_kills import check_every_receipt, runs, supervisor_and_vmm
from tests.e2e.world import result, start, until

pytestmark = pytest.mark.vm


def test_a_sandbox_whose_supervisor_hangs_is_stopped_with_every_receipt(up: Up) -> None:
    workflow = start(up, {"task": {"argv": ["sleep", "300"]}})
    until(lambda: any(up.state.glob("host/output/*/1.out")), 40)
    supervisor, vmm = supervisor_and_vmm(up)
    os.kill(supervisor, signal.SIGSTOP)
    up.run("sandbox", "stop", workflow, timeout=60, check=True)
    report = result(up, workflow)
    check_every_receipt(report)
    assert not [pid for pid in (supervisor, vmm) if runs(pid)]
