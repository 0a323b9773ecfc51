"""What the tests of Google's provider share: orders, machines in a known state, and waiting with a deadline."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.contract import HostOrder, HostState, Item, ProviderError
from tests.clouds.gce import Gce
from tests.clouds.gce_world import Vm

ZONE = "europe-west4-a"


def order(**changes: Any) -> HostOrder:
    fields: dict[str, Any] = {
        "controller": "prod",
        "environment": "gcp",
        "host": "h1",
        "attempt": 1,
        "size": "n2-standard-4",
        "zone": ZONE,
        "deadline": datetime.now(UTC) + timedelta(hours=2),
        "user_data": "#cloud-config\n",
    }
    return HostOrder(**(fields | changes))


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits for a condition, and fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def refused(call: Callable[[], object]) -> ProviderError:
    """The error of a call that must fail."""
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def running(cloud: Gce, wanted: HostOrder) -> Item:
    """A machine that was made and runs."""
    cloud.provider.create(wanted)
    until(lambda: (found := cloud.provider.get(wanted)) and found.state is HostState.RUNNING)
    found = cloud.provider.get(wanted)
    assert found is not None
    return found


def failed(cloud: Gce, wanted: HostOrder) -> Item:
    """A machine whose creation failed in its operation."""
    cloud.provider.create(wanted)
    until(lambda: (found := cloud.provider.get(wanted)) and found.why)
    found = cloud.provider.get(wanted)
    assert found is not None
    return found


def vm(cloud: Gce, wanted: HostOrder) -> Vm:
    with cloud.world.lock:
        return cloud.world.vms[wanted.zone, wanted.name]
