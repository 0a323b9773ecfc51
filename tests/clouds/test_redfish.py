"""The emulated racks behave as the suite relies on: power, boots, faults, counts, and nothing left at the end."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import requests

from providers.contract import ErrorClass, HostOrder, HostState, ProviderError
from tests.clouds.cloud import Cloud, Fault, Machine, Operation
from tests.clouds.rack import UNITS
from tests.clouds.redfish import Redfish


@pytest.fixture
def redfish() -> Iterator[Redfish]:
    cloud = Redfish()
    yield cloud
    cloud.close()


def order(host: str = "h1", **changes: object) -> HostOrder:
    fields: dict[str, object] = {"controller": "prod", "environment": "site", "host": host, "attempt": 1}
    fields |= {"size": Redfish.size, "zone": "rack1", "deadline": datetime(2027, 1, 1, tzinfo=UTC)}
    return HostOrder(**(fields | {"user_data": f"#cloud-config\n# {host}\n"} | changes))  # type: ignore[arg-type]


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.01)


def test_it_is_a_cloud(redfish: Redfish) -> None:
    cloud: Cloud = redfish
    assert {one.name for one in cloud.provider.catalogue()} == {cloud.size, cloud.size_without_kvm}
    assert cloud.held() == ()


def test_the_emulator_wants_the_account(redfish: Redfish) -> None:
    systems = f"{redfish.endpoint}/redfish/v1/Systems"
    assert requests.get(systems, timeout=5).status_code == 401
    assert requests.get(systems, auth=("paddock", "wrong"), timeout=5).status_code == 401
    found = requests.get(systems, auth=("paddock", redfish.password), timeout=5).json()
    assert len(found["Members"]) == len(UNITS)


def test_a_boot_is_told_with_what_the_machine_reads_and_its_end_by_the_same_id(redfish: Redfish) -> None:
    booted: list[Machine] = []
    ended: list[str] = []
    redfish.on_boot, redfish.on_end = booted.append, ended.append
    item = redfish.provider.create(order())
    until(lambda: booted)
    assert booted == [Machine(item.id, order().name, "rack1", order().tags, order().user_data)]
    redfish.press(item.id.split("@")[0], "ForceRestart")
    until(lambda: len(booted) == 2)
    assert ended == [item.id]
    redfish.provider.terminate(item)
    until(lambda: len(ended) == 2)
    assert ended[1] == item.id


@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        (Fault.THROTTLED, ErrorClass.THROTTLED, 3),
        (Fault.TRANSIENT, ErrorClass.TRANSIENT, None),
        (Fault.AUTH, ErrorClass.AUTH, None),
        (Fault.LOST, ErrorClass.TRANSIENT, None),
    ],
)
@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.GET, Operation.TERMINATE])
def test_a_fault_falls_on_its_operation_and_so_often(
    redfish: Redfish, operation: Operation, fault: Fault, kind: ErrorClass, wait: float | None
) -> None:
    calls = {
        Operation.CREATE: lambda: redfish.provider.create(order("h2")),
        Operation.GET: lambda: redfish.provider.get(order()),
        Operation.TERMINATE: lambda: redfish.provider.terminate(item),
    }
    item = redfish.provider.create(order())
    until(lambda: redfish.power("r1u1") == "On")
    redfish.fault(operation, fault, times=2)
    for _ in range(2 if fault is not Fault.LOST else 1):
        with pytest.raises(ProviderError) as wrong:
            calls[operation]()
        assert (wrong.value.kind, wrong.value.retry_after_s) == (kind, wait)
    if fault is Fault.LOST and operation is not Operation.GET:
        machine, power = ("r1u2", "On") if operation is Operation.CREATE else ("r1u1", "Off")
        until(lambda: redfish.power(machine) == power)
    elif fault is not Fault.LOST:
        calls[operation]()


def test_a_list_with_a_fault_is_incomplete(redfish: Redfish) -> None:
    redfish.provider.create(order())
    redfish.fault(Operation.LIST, Fault.AUTH)
    found = redfish.provider.list_owned("prod")
    assert (found.complete, found.missing_scopes, len(found.items)) == (False, ("rack1/r1u1",), 1)
    assert redfish.provider.list_owned("prod").complete


def test_a_late_machine_is_pending_and_comes(redfish: Redfish) -> None:
    redfish.fault(Operation.CREATE, Fault.LATE)
    redfish.provider.create(order())
    found = redfish.provider.get(order())
    assert found is not None
    assert found.state is HostState.PENDING
    until(lambda: redfish.power("r1u1") == "On")


def test_a_fault_of_capacity_is_a_full_inventory_for_one_order(redfish: Redfish) -> None:
    redfish.fault(Operation.CREATE, Fault.CAPACITY)
    with pytest.raises(ProviderError, match="no machine of size metal-8 in rack1 is free: 12 claimed") as wrong:
        redfish.provider.create(order())
    assert wrong.value.kind is ErrorClass.CAPACITY
    assert redfish.held() == ()
    redfish.provider.create(order())


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        (Operation.CREATE, Fault.QUOTA),
        (Operation.GET, Fault.CAPACITY),
        (Operation.GET, Fault.LATE),
        (Operation.LIST, Fault.LATE),
    ],
)
def test_what_cannot_go_wrong_on_prem_is_refused(redfish: Redfish, operation: Operation, fault: Fault) -> None:
    with pytest.raises(ValueError, match=f"{operation} knows no {fault}"):
        redfish.fault(operation, fault)


def test_what_others_claimed_or_turned_on_is_held(redfish: Redfish) -> None:
    planted = redfish.plant("host", {"paddock-controller": "other"})
    redfish.press("r2u1", "On")
    assert {(one.id, tuple(one.tags.items())) for one in redfish.held()} == {
        (planted, (("paddock-controller", "other"),)),
        ("r2u1", ()),
    }
    with pytest.raises(ValueError, match="no disk"):
        redfish.plant("disk", {})


def test_requests_are_counted_by_method_and_kind(redfish: Redfish) -> None:
    redfish.provider.create(order())
    redfish.provider.get(order())
    assert redfish.calls() == {"GET System": 4, "PATCH System": 1, "POST System.Reset": 1}


def test_a_boot_once_is_forgotten_after_it(redfish: Redfish) -> None:
    redfish.provider.create(order())
    assert redfish.front.bodies[0][2]["Boot"]["BootSourceOverrideEnabled"] == "Once"
    until(lambda: redfish.power("r1u1") == "On")
    assert redfish.rack.get_boot_device(UNITS[0].system) == "Hdd"


def test_two_live_at_a_time_and_leave_nothing() -> None:
    before = set(threading.enumerate())
    one, other = Redfish(), Redfish()
    try:
        one.provider.create(order())
        assert one.held()
        assert not other.held()
    finally:
        one.close()
        other.close()
    assert set(threading.enumerate()) <= before
    assert not one.folder.exists()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(one.endpoint.rsplit(":", 1)[1])))
