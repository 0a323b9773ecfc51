"""Azure's particulars: what is asked for, what is refused before any call, and orders that never become updates."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from providers.contract import ErrorClass, HostState, ProviderError
from tests.clouds.arm import Arm
from tests.clouds.arm.bench import SLOW, until
from tests.clouds.arm.emulator import IDENTITY, OTHER_IMAGE
from tests.clouds.arm.orders import TIMES, order, running, sent, state
from tests.clouds.cloud import Fault, Machine, Operation


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


# What is asked for


def test_a_machine_has_all_that_it_needs_and_nothing_that_outlives_it(arm: Arm) -> None:
    booted: list[Machine] = []
    arm.on_boot = booted.append
    running(arm, order())
    machine = sent(arm, order())
    about = machine.properties
    assert about.security_profile.security_type == "Standard"  # Trusted Launch hides KVM
    assert (about.priority, about.eviction_policy) == ("Regular", None)
    assert about.storage_profile.os_disk.delete_option == "Delete"
    assert about.storage_profile.os_disk.disk_size_gb == arm.ground.disk_gib
    assert [one.properties.delete_option for one in about.network_profile.network_interfaces] == ["Delete"]
    assert about.os_profile.linux_configuration.disable_password_authentication
    assert list(machine.identity.user_assigned_identities) == [IDENTITY]
    assert (machine.zones, machine.location) == (["2"], "westeurope")
    assert [one.user_data for one in booted] == ["#cloud-config\n"]
    assert {one.kind for one in arm.held()} == {"host", "nic", "disk"}  # and no address
    assert all(dict(one.tags) == order().tags for one in arm.held())


def test_nobody_can_sign_in_and_each_machines_key_is_another(arm: Arm) -> None:
    keys = []
    for host in ("h1", "h2"):
        arm.provider.create(order(host=host))
        ssh = sent(arm, order(host=host)).properties.os_profile.linux_configuration.ssh
        keys += [one.key_data for one in ssh.public_keys]
    assert len(set(keys)) == 2


def test_the_grounds_key_is_used_where_it_has_one() -> None:
    key = f"ssh-ed25519 {'A' * 68} ops"
    arm = Arm(TIMES, ssh_public_key=key, zones=(), identity="")
    try:
        arm.provider.create(order(zone=""))
        machine = sent(arm, order())
        assert machine.properties.os_profile.linux_configuration.ssh.public_keys[0].key_data == key
        assert (machine.zones, machine.identity) == (None, None)
    finally:
        arm.close()


def test_spot_goes_when_it_is_evicted_and_costs_no_more_than_on_demand(arm: Arm) -> None:
    arm.provider.create(order(spot=True))
    about = sent(arm, order()).properties
    assert (about.priority, about.eviction_policy, about.billing_profile.max_price) == ("Spot", "Delete", -1)


def test_an_order_may_name_its_image(arm: Arm) -> None:
    arm.provider.create(order(image=OTHER_IMAGE))
    reference = sent(arm, order()).properties.storage_profile.image_reference
    assert ":".join((reference.publisher, reference.offer, reference.sku, reference.version)) == OTHER_IMAGE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "Standard_B4s_v2"}, "burstable"),
        ({"size": "Standard_D4ps_v6"}, "Arm"),
        ({"size": "Standard_D4as_v4"}, "Dasv4.*no KVM"),
        ({"size": "Standard_DC4s_v3"}, "confidential"),
        ({"size": "Standard_EC4as_v5"}, "confidential"),
        ({"size": "Standard_DS3_v2"}, "no KVM"),
        ({"size": "Standard_A4"}, "no KVM"),
        ({"size": "Standard_E4-2s_v5"}, "no size that is known"),
        ({"size": "m8i.large"}, "Standard_D8s_v5"),
        ({"size": "Standard_F8s_v2"}, "not on the list"),
        ({"size": "Standard_L8s_v3"}, "not on the list"),
        ({"size": "Standard_D5s_v5"}, "2, 4, 8"),
        ({"zone": "4"}, "1, 2, 3"),
        ({"zone": ""}, "1, 2, 3"),
        ({"image": "debian"}, "publisher:offer:sku:version"),
        ({"host": "H1"}, "paddock-host"),
        ({"user_data": "x" * 16_385}, "16385"),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(arm: Arm, change: dict[str, str], words: str) -> None:
    with pytest.raises(ProviderError, match=words) as refused:
        arm.provider.create(order(**change))
    assert refused.value.kind is ErrorClass.INVALID
    assert arm.calls() == {}


# The same order again


def test_the_same_order_is_looked_up_and_never_put_again(arm: Arm) -> None:
    first = arm.provider.create(order())
    until(lambda: state(arm, order()) is HostState.RUNNING, "it runs")
    again = arm.provider.create(order())
    assert (again.id, again.state) == (first.id, HostState.RUNNING)
    assert arm.calls()["virtualMachines.PUT"] == 1


def test_when_two_callers_race_the_second_changes_nothing(slow: Arm) -> None:
    slow.habits.slow_look_ups = True
    slow.fault(Operation.CREATE, Fault.LATE)
    slow.provider.create(order())
    later = order(deadline=datetime(2028, 1, 1, tzinfo=UTC))
    with pytest.raises(ProviderError, match="cannot be read yet") as raced:
        slow.provider.create(later)
    assert raced.value.again
    slow.catch_up()
    assert slow.provider.create(later).deadline == order().deadline
    assert dict(sent(slow, order()).tags) == order().tags
    assert slow.calls()["virtualMachines.PUT"] == 2


def test_ten_callers_of_one_order_get_one_machine(arm: Arm) -> None:
    start = threading.Barrier(10)

    def create(_: int) -> str:
        start.wait(10)
        return arm.provider.create(order()).id

    with ThreadPoolExecutor(10) as threads:
        ids = set(threads.map(create, range(10)))
    assert len(ids) == 1
    assert len([one for one in arm.held() if one.kind == "host"]) == 1


def test_a_lost_answer_may_have_made_it_and_the_next_call_finds_it(arm: Arm) -> None:
    arm.fault(Operation.CREATE, Fault.LOST)
    with pytest.raises(ProviderError) as lost:
        arm.provider.create(order())
    assert lost.value.again
    assert arm.provider.create(order()).host == "h1"
    assert arm.calls()["virtualMachines.PUT"] == 1


@pytest.mark.parametrize("change", [{"paddock-host": "h2"}, {"paddock-controller": "other"}, {"paddock-attempt": ""}])
def test_a_machine_of_its_name_that_the_order_did_not_make_is_left_alone(arm: Arm, change: dict[str, str]) -> None:
    arm.plant("host", order().tags | change, order().name)
    with pytest.raises(ProviderError, match=next(iter(change))) as conflict:
        arm.provider.create(order())
    assert conflict.value.kind is ErrorClass.CONFLICT
    assert "virtualMachines.PUT" not in arm.calls()


@pytest.mark.parametrize("change", [{"size": "Standard_D8s_v5"}, {"zone": "3"}])
def test_another_size_or_zone_needs_another_attempt(arm: Arm, change: dict[str, str]) -> None:
    arm.provider.create(order())
    with pytest.raises(ProviderError, match="another attempt") as conflict:
        arm.provider.create(order(**change))
    assert conflict.value.kind is ErrorClass.CONFLICT
