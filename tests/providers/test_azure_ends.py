"""Azure's particulars: a machine that failed leaves nothing, and the resource group is listed whole or not at all."""

from collections.abc import Iterator
from typing import Any

import pytest

from providers.azure import Azure
from providers.contract import ErrorClass, HostState, Item, ProviderError
from tests.clouds.arm import Arm
from tests.clouds.arm.bench import SLOW, until
from tests.clouds.arm.emulator import GROUP
from tests.clouds.arm.orders import TIMES, named, order, running, sent, state


@pytest.fixture
def arm() -> Iterator[Arm]:
    arm = Arm(TIMES)
    yield arm
    arm.close()


@pytest.fixture
def slow() -> Iterator[Arm]:
    arm = Arm(SLOW)
    yield arm
    arm.close()


# Failed machines


def test_a_machine_that_failed_says_why_and_its_end_leaves_nothing(arm: Arm) -> None:
    arm.fail_later("ZonalAllocationFailed", "Allocation failed.\nWe do not have sufficient capacity in this zone.")
    arm.provider.create(order())
    until(lambda: state(arm, order()) is HostState.DELETING, "it failed")
    failed = arm.provider.get(order())
    assert failed is not None
    assert failed.why == (
        "capacity: ZonalAllocationFailed: Allocation failed. We do not have sufficient capacity in this zone."
    )
    assert arm.provider.create(order()).why  # adopted as it is, not made again
    assert arm.provider.terminate(failed) is HostState.DELETING
    until(lambda: state(arm, order()) is None, "it is gone")
    assert arm.provider.terminate(failed) is HostState.GONE
    assert arm.held() == ()


def test_a_machine_that_shut_itself_down_is_paid_for_until_it_is_ended(arm: Arm) -> None:
    item = running(arm, order())
    arm.shut_down(item.name)
    found = arm.provider.get(order())
    assert found is not None
    assert (found.state, found.why.split(": ")[1]) == (HostState.DELETING, "PowerState/stopped")


def test_a_failed_machine_is_listed_with_a_reason(arm: Arm) -> None:
    arm.fail_later("AllocationFailed", "none")
    arm.provider.create(order())
    until(lambda: state(arm, order()) is HostState.DELETING, "it failed")
    (item,) = [one for one in arm.provider.list_owned("prod").items if one.kind == "host"]
    assert (item.state, bool(item.why)) == (HostState.DELETING, True)


def failed_with_a_leak(arm: Arm, suffix: str) -> Item:
    """The machine of the order, failed and gone; its interface is still there, in no list, and promised."""
    arm.habits.leaks_interface, arm.habits.interface_suffix = True, suffix
    arm.fail_later("OperationNotAllowed", "exceeding approved Cores quota. Current Limit: 0")
    arm.provider.create(order())
    until(lambda: state(arm, order()) is HostState.DELETING, "it failed")
    failed = arm.provider.get(order())
    assert failed is not None
    assert failed.why.startswith("quota: ")
    arm.provider.terminate(failed)
    until(lambda: state(arm, order()) is None, "the machine is gone")
    return failed


def test_an_interface_that_stays_behind_is_ended_by_name_before_any_list_shows_it(slow: Arm) -> None:
    failed = failed_with_a_leak(slow, "")
    assert ("nic", f"{order().name}-nic") in named(slow)
    with pytest.raises(ProviderError, match="three minutes") as reserved:
        slow.provider.terminate(failed)
    assert (reserved.value.kind, reserved.value.retry_after_s) == (ErrorClass.TRANSIENT, 180)
    slow.catch_up(free=True)
    until(lambda: slow.provider.terminate(failed) is HostState.GONE, "all is gone")
    assert slow.held() == ()


def test_an_interface_under_another_name_is_found_by_the_list_and_ended(slow: Arm) -> None:
    failed = failed_with_a_leak(slow, "-3f2a")
    slow.catch_up()
    found = slow.provider.list_owned("prod").items
    assert [(one.kind, one.host, one.attempt, one.attached_to) for one in found] == [("nic", "h1", 1, "")]
    with pytest.raises(ProviderError, match="three minutes"):
        slow.provider.terminate(failed)
    with pytest.raises(ProviderError, match="three minutes"):
        slow.provider.terminate(found[0])
    slow.catch_up(free=True)
    until(lambda: slow.provider.terminate(failed) is HostState.GONE, "all is gone")
    assert slow.held() == ()


def test_what_somebody_gave_to_another_machine_stays_there(arm: Arm) -> None:
    rescue, name = running(arm, order(host="rescue")), f"{order().name}-h1-os"
    arm.plant("disk", {}, name)
    arm.attach("disk", name, rescue.name)
    assert arm.provider.terminate(Item(**fields(rescue, order().name))) is HostState.GONE
    assert ("disk", name) in named(arm)
    assert "disks.DELETE" not in arm.calls()


def test_an_interface_that_a_sweep_found_is_ended_by_itself(arm: Arm) -> None:
    arm.plant("nic", order().tags, "left-behind")
    (found,) = arm.provider.list_owned("prod").items
    assert arm.provider.terminate(found) is HostState.DELETING
    until(lambda: arm.provider.terminate(found) is HostState.GONE, "it is gone")
    assert arm.held() == ()


def test_the_end_of_a_machine_that_runs_takes_disk_and_interface(arm: Arm) -> None:
    item = running(arm, order())
    assert arm.provider.terminate(item) is HostState.DELETING
    assert arm.provider.terminate(item) in {HostState.DELETING, HostState.GONE}
    until(lambda: state(arm, order()) is None, "it is gone")
    assert arm.held() == ()
    assert arm.provider.terminate(item) is HostState.GONE


def test_a_machine_that_is_gone_takes_no_neighbours_with_it(arm: Arm) -> None:
    neighbour = running(arm, order(host="h2"))
    arm.plant("disk", {}, "web-data")
    foreign = Item(id=neighbour.id.replace(neighbour.name, "web"), kind="host", name="web", state=HostState.RUNNING)
    assert arm.provider.terminate(foreign) is HostState.GONE
    assert arm.provider.terminate(Item(**fields(neighbour, order().name))) is HostState.GONE
    assert len(arm.held()) == 4


def fields(item: Item, name: str) -> dict[str, Any]:
    return {"id": item.id.replace(item.name, name), "kind": "host", "name": name, "state": HostState.RUNNING}


@pytest.mark.parametrize(
    ("kind", "id", "words"),
    [
        ("host", "/subscriptions/x/resourceGroups/y/providers/Microsoft.Compute/virtualMachines/z", "does not lie in"),
        ("host", "z", "does not lie in"),
        ("vault", "z", "host, disk, nic, address"),
    ],
)
def test_nothing_outside_the_ground_is_ended(arm: Arm, kind: str, id: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words) as refused:
        arm.provider.terminate(Item(id=id, kind=kind, name="z", state=HostState.RUNNING))
    assert refused.value.kind is ErrorClass.INVALID
    assert arm.calls() == {}


# Lists


def test_all_kinds_on_all_pages_are_found_and_nothing_of_others(arm: Arm) -> None:
    item = running(arm, order())
    arm.plant_address({}, f"{order().name}-nic")
    for number in range(3):
        arm.plant("nic", order().tags | {"paddock-controller": "other"})
        arm.plant("disk", {"team": f"t{number}"})
    arm.plant("host", {"paddock-host": "h9"})
    until(lambda: len(arm.provider.list_owned("prod").items) == 4, "all is listed")
    inventory = arm.provider.list_owned("prod")
    assert inventory.complete
    assert {one.kind: one.attached_to for one in inventory.items} == {
        "host": "",
        "nic": item.id,
        "disk": item.id,
        "address": item.id,
    }
    assert {(one.host, one.attempt, one.deadline) for one in inventory.items} == {("h1", 1, order().deadline)}
    assert all(one.created is not None for one in inventory.items if one.kind in {"host", "disk"})


def test_an_untagged_disk_is_known_by_its_machine_and_proves_itself_without_one(arm: Arm) -> None:
    arm.habits.disk_inherits_tags = False
    running(arm, order())
    until(lambda: disks(arm, "prod"), "the disk is listed")
    found = [(one.environment, one.host, one.deadline) for one in disks(arm, "prod")]
    assert found == [(order().environment, "h1", order().deadline)]
    for environment in ("e-1", "e"):  # told apart by the order's name only
        arm.plant(
            "disk", {}, f"{order(host='1-b' if environment == 'e' else 'b', environment=environment).name}-e-1-b-os"
        )
    proved = {(one.environment, one.host, one.attempt) for one in disks(arm, "prod")}
    assert proved >= {("e-1", "b", 1), ("e", "1-b", 1)}
    assert disks(arm, "other") == []


@pytest.mark.parametrize("name", ["ph-0123456789abcdef0123-1-h1-os", "ph-0123456789abcdef0123-1-os", "h1-os"])
def test_a_name_that_only_looks_like_ours_proves_nothing(arm: Arm, name: str) -> None:
    arm.plant("disk", {}, name)
    assert arm.provider.list_owned("prod").items == ()


def test_a_host_with_the_longest_name_fits(arm: Arm) -> None:
    running(arm, order(host="h" * 63))
    until(lambda: disks(arm, "prod"), "the disk is listed")
    assert disks(arm, "prod")[0].host == "h" * 63


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("virtualMachines.LIST", "machines"),
        ("networkInterfaces.LIST", "interfaces"),
        ("disks.LIST", "disks"),
        ("publicIPAddresses.LIST", "addresses"),
    ],
)
def test_a_list_that_fails_makes_the_inventory_incomplete_and_the_rest_is_there(
    arm: Arm, call: str, words: str
) -> None:
    for kind in ("host", "nic", "disk"):
        arm.plant(kind, order().tags)
    arm.refuse(call, 403, "AuthorizationFailed", "no read")
    inventory = arm.provider.list_owned("prod")
    assert not inventory.complete
    assert words in inventory.missing_scopes[0]
    assert GROUP in inventory.missing_scopes[0]
    assert len(inventory.items) == (3 if "public" in call else 2)


def test_an_untagged_disk_of_a_protected_machine_is_protected(arm: Arm) -> None:
    arm.habits.disk_inherits_tags = False
    item = running(arm, order())
    tags = dict(sent(arm, order()).tags) | {"paddock-protect": "yes"}
    arm.tag("host", item.name, tags)
    until(lambda: disks(arm, "prod"), "the disk is listed")
    assert [one.protected for one in disks(arm, "prod")] == [True]


def disks(arm: Arm, controller: str) -> list[Item]:
    return [one for one in arm.provider.list_owned(controller).items if one.kind == "disk"]


def test_no_environment_of_another_place_is_proved_empty(arm: Arm) -> None:
    for change, words in (
        ({"subscription": "00000000-0000-0000-0000-000000000001"}, "names a subscription that is not there"),
        ({"resource_group": "elsewhere"}, "resource group is missing"),
    ):
        provider = Azure(arm.ground_with(**change))
        with pytest.raises(ProviderError, match=words) as refused:
            provider.get(order())
        assert refused.value.kind is ErrorClass.INVALID
        assert not provider.list_owned("prod").complete
        provider.close()


def test_a_bare_404_is_no_proof_that_a_machine_is_gone(arm: Arm) -> None:
    arm.answer("virtualMachines.GET", 404, None)
    with pytest.raises(ProviderError):
        arm.provider.get(order())
    assert arm.provider.get(order()) is None


def test_a_proxys_page_is_no_answer(arm: Arm) -> None:
    arm.answer("virtualMachines.GET", 200, None)
    with pytest.raises(ProviderError, match="not Azure's") as failed:
        arm.provider.get(order())
    assert failed.value.again
    arm.answer("disks.LIST", 200, None)
    assert not arm.provider.list_owned("prod").complete
