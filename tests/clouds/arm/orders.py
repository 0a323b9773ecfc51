"""Orders for the emulator, and waiting for what becomes of them."""

from datetime import UTC, datetime
from typing import Any

from providers.contract import HostOrder, HostState, Item
from tests.clouds.arm.bench import until
from tests.clouds.arm.emulator import GROUP, Arm
from tests.clouds.arm.group import Times

TIMES = Times(boot=0.05, end=0.05, listed=0.2, late=0.3, reserved=0.4)


def order(**changes: Any) -> HostOrder:
    fields: dict[str, Any] = {
        "controller": "prod",
        "environment": "azure-eu",
        "host": "h1",
        "attempt": 1,
        "size": "Standard_D4s_v5",
        "zone": "2",
        "deadline": datetime(2027, 1, 1, tzinfo=UTC),
        "user_data": "#cloud-config\n",
    }
    return HostOrder(**(fields | changes))


def running(arm: Arm, wanted: HostOrder) -> Item:
    arm.provider.create(wanted)
    until(lambda: state(arm, wanted) is HostState.RUNNING, f"{wanted.name} runs")
    found = arm.provider.get(wanted)
    assert found is not None
    return found


def state(arm: Arm, wanted: HostOrder) -> HostState | None:
    found = arm.provider.get(wanted)
    return found.state if found else None


def sent(arm: Arm, wanted: HostOrder) -> Any:
    """The machine as the cloud holds it."""
    return arm.provider._compute.virtual_machines.get(GROUP, wanted.name, enforce_https=False)


def named(arm: Arm) -> set[tuple[str, str]]:
    return {(one.kind, one.id.rpartition("/")[2]) for one in arm.held()}
