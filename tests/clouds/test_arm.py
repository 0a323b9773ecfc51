"""The emulated Azure is held to what Azure does, by its own SDK: making, what is refused, and lists."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.mgmt.compute import models as compute

from tests.clouds.arm import Arm, schema
from tests.clouds.arm.bench import NIC, Bench, code, machine, until
from tests.clouds.arm.emulator import GROUP, IMAGE, SUBNET
from tests.clouds.cloud import Machine


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


# Making


def test_a_machine_is_accepted_and_made_later_by_an_operation_that_the_sdk_can_poll(bench: Bench) -> None:
    statuses: list[tuple[int, str, str]] = []

    def seen(answer: Any) -> None:
        response = answer.http_response
        statuses.append(
            (response.status_code, answer.http_request.method, response.headers.get("Azure-AsyncOperation", ""))
        )

    made = bench.put(raw_response_hook=seen).result(10)
    assert statuses[0][:2] == (201, "PUT")
    assert "/operations/" in statuses[0][2]
    assert made.properties.provisioning_state == "Succeeded"
    assert bench.arm.calls()["operations.GET"] >= 1
    assert bench.held() == {"vm1", NIC, "vm1-os"}


def test_an_accepted_machine_is_creating_with_its_interface_already_there(bench: Bench) -> None:
    first = bench.put(polling=False).result()
    assert first.properties.provisioning_state == "Creating"
    assert first.properties.network_profile.network_interfaces[0].id.endswith(f"/networkInterfaces/{NIC}")
    nic = bench.network.network_interfaces.get(GROUP, NIC, enforce_https=False)
    assert nic.tags == {"a": "b"}
    assert nic.properties is not None
    assert nic.properties.virtual_machine is not None
    assert nic.properties.virtual_machine.id != first.id  # another spelling
    assert str(nic.properties.virtual_machine.id).lower() == first.id.lower()


def test_a_new_interface_is_in_no_list_for_a_while(bench: Bench) -> None:
    bench.put(polling=False)
    assert bench.nics() == []
    bench.arm.catch_up()
    assert bench.nics() == [NIC]


def test_secrets_of_a_machine_are_never_answered_and_the_view_only_when_asked_for(bench: Bench) -> None:
    bench.put().result(10)
    assert bench.get().properties.os_profile.custom_data is None
    assert bench.get().properties.instance_view is None
    codes = [one.code for one in bench.get(expand="instanceView").properties.instance_view.statuses]
    assert codes == ["ProvisioningState/succeeded", "PowerState/running"]


def test_boot_and_end_are_told_from_the_emulators_thread(bench: Bench) -> None:
    told: list[tuple[object, str]] = []
    bench.arm.on_boot = lambda one: told.append((one, threading.current_thread().name))
    bench.arm.on_end = lambda id: told.append((id, threading.current_thread().name))
    made = bench.put().result(10)
    until(lambda: told, "boot is told")
    assert told == [(Machine(made.id, "vm1", "1", {"a": "b"}, "hello"), "arm-later")]
    bench.delete().result(10)
    until(lambda: len(told) == 2, "end is told")
    assert told[1] == (made.id, "arm-later")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (machine(properties__hardwareProfile={"vmsize": "x"}), "hardwareProfile.vmsize"),
        (machine(properties__hardwareProfile={"vmSize": 4}), "vmSize"),
        (machine(properties__priority="Cheap"), "Cheap"),
        (machine(properties__securityProfile={"securityType": "standard"}), "Standard"),
        (machine(properties__provisioningState="Succeeded"), "read-only"),
        (machine(zones="1"), "list"),
        (machine(tags={"a": 1}), "tags"),
        (machine(tag={}), "no such member"),
        (machine(properties__storageProfile__osDisk__diskSizeGB="64"), "diskSizeGB"),
    ],
)
def test_a_body_that_the_model_does_not_allow_is_refused(bench: Bench, body: Any, words: str) -> None:
    with pytest.raises(HttpResponseError, match=words) as refused:
        bench.put(body=body)
    assert (refused.value.status_code, code(refused.value)) == (400, "InvalidRequestContent")
    assert not bench.held()


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (machine(location="eastus"), "LocationNotAvailableForResourceType"),
        (machine(zones=["4"]), "AvailabilityZoneNotSupported"),
        (machine(tags={"a/b": "c"}), "InvalidTagNameCharacters"),
        (machine(tags={f"k{n}": "" for n in range(51)}), "InvalidTag"),
        (machine(properties__hardwareProfile__vmSize="large"), "InvalidParameter"),
        (machine(properties__storageProfile__osDisk__name="a" * 81), "InvalidParameter"),
        (machine(properties__storageProfile__imageReference__id=f"{IMAGE}0"), "GalleryImageNotFound"),
        (machine(properties__osProfile__customData="no base64!"), "InvalidParameter"),
        (machine(properties__osProfile__linuxConfiguration={}), "InvalidParameter"),
        (machine(properties__networkProfile__networkApiVersion=None), "InvalidParameter"),
        (machine(properties__evictionPolicy="Delete"), "InvalidParameter"),
        (
            machine(
                properties__networkProfile__networkInterfaceConfigurations__0__properties__ipConfigurations__0__properties__subnet={
                    "id": f"{SUBNET}x"
                }
            ),
            "InvalidResourceReference",
        ),
    ],
)
def test_a_machine_that_azure_would_not_make_is_refused_by_azures_code(bench: Bench, body: Any, wanted: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        bench.put(body=body)
    assert code(refused.value) == wanted
    assert not bench.held()


def test_an_answer_that_the_models_do_not_know_is_the_emulators_own_fault() -> None:
    arm = Arm()
    arm._group.add("disks", "odd", {}, {"provisioned": True, "creationData": {"createOption": "Empty"}})
    arm.provider.list_owned("c")
    with pytest.raises(AssertionError, match="provisioned"):
        arm.close()


def test_the_schema_knows_deep_members_and_their_types() -> None:
    good = {"location": "x", "properties": {"timeCreated": "2026-01-01T00:00:00+00:00"}}
    assert schema.problems(compute, "VirtualMachine", good, request=False) == []
    assert schema.problems(compute, "VirtualMachine", good, request=True)  # only Azure says it
    bad = {"location": "x", "properties": {"timeCreated": "yesterday"}}
    assert schema.problems(compute, "VirtualMachine", bad, request=False)


# The same name again


def test_a_second_request_without_a_condition_is_an_update(bench: Bench) -> None:
    bench.put().result(10)
    bench.put(body=machine(tags={"other": "tags"}), polling=False)
    assert bench.get().tags == {"other": "tags"}
    assert bench.arm.calls()["virtualMachines.PUT"] == 2


def test_with_the_condition_an_existing_machine_refuses_and_stays_as_it_is(bench: Bench) -> None:
    bench.put(etag="*", match_condition=MatchConditions.IfMissing).result(10)
    with pytest.raises(ResourceExistsError) as refused:
        bench.put(body=machine(tags={}), etag="*", match_condition=MatchConditions.IfMissing)
    assert refused.value.status_code == 412
    assert bench.get().tags == {"a": "b"}


def test_what_cannot_change_is_a_conflict(bench: Bench) -> None:
    bench.put().result(10)
    with pytest.raises(ResourceExistsError) as refused:
        bench.put(body=machine(properties__osProfile__computerName="other"))
    assert code(refused.value) == "PropertyChangeNotAllowed"


# Lists


def test_lists_come_in_pages(bench: Bench) -> None:
    planted = {bench.arm.plant("nic", {}).rpartition("/")[2] for _ in range(5)}
    assert set(bench.nics()) == planted
    assert bench.arm.calls()["networkInterfaces.LIST"] == 3
