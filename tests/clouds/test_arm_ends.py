"""The emulated Azure is held to what Azure does, by its own SDK: failures, ends, and what tests plant."""

import socket
from collections.abc import Callable, Iterator

import pytest
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from tests.clouds.arm import Arm
from tests.clouds.arm.bench import DETACH, NIC, Bench, code, until
from tests.clouds.arm.emulator import GROUP
from tests.clouds.cloud import Fault, Operation


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


# Failing and ending


def test_a_failed_operation_is_an_error_with_status_200_and_leaves_machine_and_interface(bench: Bench) -> None:
    bench.arm.fail_later("AllocationFailed", "We do not have sufficient capacity.")
    poller = bench.put()
    with pytest.raises(HttpResponseError) as failed:
        poller.result(10)
    assert (failed.value.status_code, code(failed.value)) == (200, "AllocationFailed")
    assert bench.get().properties.provisioning_state == "Failed"
    status = bench.get(expand="instanceView").properties.instance_view.statuses[0]
    assert (status.code, status.level) == ("ProvisioningState/failed/AllocationFailed", "Error")
    assert bench.held() == {"vm1", NIC, "vm1-os"}


def test_the_end_takes_what_was_made_to_die_with_the_machine(bench: Bench) -> None:
    bench.put().result(10)
    bench.delete(force_deletion=True).result(10)
    assert bench.held() == set()
    with pytest.raises(ResourceNotFoundError):
        bench.get()


def test_by_default_disk_and_interface_outlive_the_machine(bench: Bench) -> None:
    bench.put(body=DETACH).result(10)
    bench.delete().result(10)
    assert bench.held() == {NIC, "vm1-os"}


def test_a_failed_machines_interface_may_stay_behind_reserved(bench: Bench) -> None:
    bench.arm.habits.leaks_interface = True
    bench.arm.fail_later("AllocationFailed", "none")
    with pytest.raises(HttpResponseError):
        bench.put().result(10)
    bench.delete().result(10)
    assert bench.held() == {NIC}
    with pytest.raises(HttpResponseError) as refused:
        bench.delete_nic()
    assert code(refused.value) == "NicReservedForAnotherVm"
    bench.arm.catch_up(free=True)
    bench.delete_nic()
    assert bench.held() == set()


def test_what_a_machine_uses_cannot_be_ended_before_it(bench: Bench) -> None:
    bench.put().result(10)
    with pytest.raises(HttpResponseError) as refused:
        bench.delete_nic()
    assert code(refused.value) == "NicInUse"
    with pytest.raises(HttpResponseError) as held:
        bench.compute.disks.begin_delete(GROUP, "vm1-os", enforce_https=False)
    assert code(held.value) == "OperationNotAllowed"


def test_ending_what_is_not_there_is_no_error(bench: Bench) -> None:
    statuses: list[int] = []
    bench.delete(raw_response_hook=lambda answer: statuses.append(answer.http_response.status_code)).result(10)
    assert statuses == [204]


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "wanted"),
    [
        (Fault.THROTTLED, 429, "TooManyRequests"),
        (Fault.TRANSIENT, 500, "InternalServerError"),
        (Fault.CAPACITY, 409, "SkuNotAvailable"),
        (Fault.QUOTA, 409, "OperationNotAllowed"),
        (Fault.AUTH, 403, "AuthorizationFailed"),
    ],
)
def test_a_fault_falls_on_its_operation_as_often_as_asked(bench: Bench, fault: Fault, status: int, wanted: str) -> None:
    bench.arm.fault(Operation.CREATE, fault, times=2)
    with pytest.raises(ResourceNotFoundError):
        bench.get()
    for _ in range(2):
        with pytest.raises(HttpResponseError) as failed:
            bench.put()
        assert (failed.value.status_code, code(failed.value)) == (status, wanted)
    assert not bench.held()
    bench.put().result(10)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_lost_answer_is_none_at_all(bench: Bench, operation: Operation) -> None:
    bench.arm.plant("host", {}, "planted")
    ask: dict[Operation, Callable[[], object]] = {
        Operation.CREATE: lambda: bench.put(polling=False),
        Operation.GET: lambda: bench.get("planted"),
        Operation.LIST: lambda: list(bench.compute.virtual_machines.list(GROUP, enforce_https=False)),
        Operation.TERMINATE: lambda: bench.delete("planted", polling=False),
    }
    bench.arm.fault(operation, Fault.LOST)
    with pytest.raises(AzureError) as lost:
        ask[operation]()
    assert not isinstance(lost.value, HttpResponseError)
    if operation is Operation.CREATE:
        assert "vm1" in bench.held()
    if operation is Operation.TERMINATE:
        until(lambda: "planted" not in bench.held(), "it ends all the same")


def test_a_late_machine_is_in_no_list_for_a_while(bench: Bench) -> None:
    bench.arm.fault(Operation.CREATE, Fault.LATE)
    bench.put(polling=False)
    assert bench.get().name == "vm1"
    assert bench.machines() == []
    bench.arm.catch_up()
    assert bench.machines() == ["vm1"]


def test_look_ups_by_name_may_be_late_too(bench: Bench) -> None:
    bench.arm.habits.slow_look_ups = True
    bench.arm.fault(Operation.CREATE, Fault.LATE)
    bench.put(polling=False)
    with pytest.raises(ResourceNotFoundError):
        bench.get()
    assert "vm1" in bench.held()
    bench.arm.catch_up()
    assert bench.get().name == "vm1"


def test_an_expired_token_and_a_foreign_place_are_refused(bench: Bench) -> None:
    with pytest.raises(ResourceNotFoundError) as other:
        bench.compute.virtual_machines.get("elsewhere", "vm1", enforce_https=False)
    assert code(other.value) == "ResourceGroupNotFound"
    bench.arm.expire_token()
    with pytest.raises(HttpResponseError) as refused:
        bench.get()
    assert refused.value.status_code == 401


def test_after_close_the_port_is_free() -> None:
    arm = Arm()
    port = int(arm.endpoint.rpartition(":")[2])
    arm.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
