"""What is asked of Google for a machine, once and only once, and what is known of its sizes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.contract import Blame, ErrorClass
from providers.gcp import GcpGround
from tests.clouds.cloud import Fault, Operation
from tests.clouds.gce import Gce
from tests.clouds.gce_rules import PROJECT
from tests.clouds.gce_use import ZONE, order, refused, running, until, vm


@pytest.fixture
def cloud() -> Iterator[Gce]:
    found = Gce()
    yield found
    found.close()
    assert not found.refused, "a request broke Google's schema"


# What is asked for


def test_a_machine_is_asked_for_with_all_that_makes_it_safe(cloud: Gce) -> None:
    wanted = order()
    cloud.provider.create(wanted)
    made = vm(cloud, wanted)
    assert made.vmx
    assert made.body["labels"] == wanted.tags
    assert made.body["minCpuPlatform"] == "Intel Cascade Lake"
    assert made.body["disks"][0]["autoDelete"]
    assert cloud.world.disks[ZONE, f"{wanted.name}-boot"]["labels"] == wanted.tags
    assert not [one for one in made.body["networkInterfaces"] if "accessConfigs" in one]
    assert made.body["serviceAccounts"][0]["email"] == f"host@{PROJECT}.iam.gserviceaccount.com"
    assert made.body["metadata"]["items"] == [{"key": "user-data", "value": "#cloud-config\n"}]
    scheduling = made.body["scheduling"]
    seconds = int(scheduling.pop("maxRunDuration")["seconds"])
    assert 7100 < seconds <= 7200
    assert scheduling == {
        "automaticRestart": False,
        "instanceTerminationAction": "DELETE",
        "onHostMaintenance": "TERMINATE",
        "provisioningModel": "STANDARD",
    }


def test_a_spot_machine_is_asked_for_as_one(cloud: Gce) -> None:
    wanted = order(spot=True)
    cloud.provider.create(wanted)
    assert vm(cloud, wanted).body["scheduling"]["provisioningModel"] == "SPOT"


@pytest.mark.parametrize(("left", "seconds"), [(-timedelta(days=1), 30), (timedelta(days=400), 120 * 86_400)])
def test_a_deadline_stays_within_what_google_takes(cloud: Gce, left: timedelta, seconds: int) -> None:
    wanted = order(deadline=datetime.now(UTC) + left)
    cloud.provider.create(wanted)
    assert vm(cloud, wanted).body["scheduling"]["maxRunDuration"] == {"seconds": str(seconds)}


@pytest.mark.parametrize(("size", "flag"), [("c3-standard-192-metal", False), ("n4-standard-4", True)])
def test_metal_is_not_asked_for_nesting_and_new_families_get_the_disk_they_take(
    cloud: Gce, size: str, flag: bool
) -> None:
    wanted = order(size=size)
    cloud.provider.create(wanted)
    assert vm(cloud, wanted).vmx
    assert ("advancedMachineFeatures" in vm(cloud, wanted).body) is flag


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": "e2-standard-4"}, "E2 never gives"),
        ({"size": "n2d-standard-4"}, "AMD has no"),
        ({"size": "t2a-standard-4"}, "Arm has no"),
        ({"size": "m3-ultramem-32"}, "memory-optimised"),
        ({"size": "q9-standard-4"}, "order one of n1, n2, c2"),
        ({"size": "n2"}, "no family"),
        ({"zone": "us-east1-b"}, "order one of europe-west4-a"),
        ({"zone": ""}, "none of this environment's"),
        ({"host": "Upper"}, "paddock-host is 'Upper'"),
        ({"user_data": "x" * 20_000}, "at most 16384"),
    ],
)
def test_a_hopeless_order_is_refused_before_any_call(cloud: Gce, changes: dict[str, Any], words: str) -> None:
    error = refused(lambda: cloud.provider.create(order(**changes)))
    assert (error.kind, error.blame) == (ErrorClass.INVALID, Blame.CALLER)
    assert words in str(error)
    assert cloud.calls() == {}


# Once and only once


def test_an_order_in_another_zone_under_the_same_attempt_is_a_conflict(cloud: Gce) -> None:
    cloud.provider.create(order())
    error = refused(lambda: cloud.provider.create(order(zone="us-central1-a")))
    assert (error.kind, error.blame) == (ErrorClass.CONFLICT, Blame.PADDOCK)
    assert ZONE in str(error)
    assert {one.zone for one in cloud.held()} == {ZONE}


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_lost_answer_leads_to_the_same_machine(cloud: Gce, forgotten: bool) -> None:
    cloud.fault(Operation.CREATE, Fault.LOST)
    error = refused(lambda: cloud.provider.create(order()))
    assert error.again
    if forgotten:  # Google keeps a request's id for a while only
        cloud.world._asked.clear()
    assert cloud.provider.create(order()).name == order().name
    assert [one.kind for one in cloud.held()] == ["host", "disk"]


def test_anothers_machine_of_the_same_name_is_neither_adopted_nor_shown(cloud: Gce) -> None:
    wanted = order()
    cloud.provider.create(wanted)
    cloud.world._asked.clear()
    vm(cloud, wanted).body["labels"] = {**wanted.tags, "paddock-controller": "other"}
    assert refused(lambda: cloud.provider.create(wanted)).kind is ErrorClass.CONFLICT
    assert refused(lambda: cloud.provider.get(wanted)).kind is ErrorClass.CONFLICT


def test_a_disk_of_the_same_name_is_a_conflict_and_no_machine_to_wait_for(cloud: Gce) -> None:
    cloud.world.add_disk(ZONE, f"{order().name}-boot", {})
    error = refused(lambda: cloud.provider.create(order()))
    assert error.kind is ErrorClass.CONFLICT
    assert "disks/" in str(error)


def test_a_name_that_is_taken_and_not_seen_yet_is_tried_again(cloud: Gce) -> None:
    cloud.fault(Operation.CREATE, Fault.LATE)
    cloud.provider.create(order())
    cloud.world._asked.clear()
    assert refused(lambda: cloud.provider.create(order())).kind is ErrorClass.TRANSIENT


def test_the_order_of_a_machine_that_has_ended_makes_no_second_one(cloud: Gce) -> None:
    wanted = order()
    cloud.provider.terminate(running(cloud, wanted))
    until(lambda: cloud.provider.get(wanted) is None)
    assert refused(lambda: cloud.provider.create(wanted)).kind is ErrorClass.CONFLICT
    assert not cloud.held()


# Settings and catalogue


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"project": "No Project"}, "project is 'No Project'"),
        ({"zones": ()}, "zones is empty"),
        ({"zones": ("europe-west4",)}, "zones has 'europe-west4'"),
        ({"subnetworks": {"us-central1": "hosts"}}, "subnetworks has none for europe-west4"),
        ({"disk_gib": 1}, "disk_gib is 1"),
        ({"credentials": {"type": "external_account"}}, "credentials is of type 'external_account'"),
    ],
)
def test_a_wrong_setting_is_named(cloud: Gce, changes: dict[str, Any], words: str) -> None:
    assert words in str(refused(lambda: cloud.ground(**changes)))


KEY = {"type": "service_account", "private_key": "s3cret", "client_email": "a@b", "token_uri": "http://127.0.0.1:1"}


def test_settings_never_show_their_credentials() -> None:
    ground = GcpGround("paddock-test", (ZONE,), {"europe-west4": "x"}, "i", credentials=KEY)
    assert "s3cret" not in repr(ground)


def test_the_catalogue_has_dated_prices_of_each_region_and_says_what_gives_kvm(cloud: Gce) -> None:
    offered = {(one.name, one.zones): one for one in cloud.provider.catalogue()}
    eu, us = ("europe-west4-a", "europe-west4-b"), ("us-central1-a",)
    assert offered["n2-standard-8", us].price_per_hour == pytest.approx(8 * 0.031611 + 32 * 0.004237)
    assert offered["n2-standard-8", eu].price_per_hour == pytest.approx(8 * 0.034802 + 32 * 0.004664)
    assert offered["n2-standard-8", us].as_of == datetime(2025, 3, 2, tzinfo=UTC)
    assert offered["c3-standard-4", us].price_per_hour is None
    kvm = {one.name: one.kvm for one in offered.values()}
    assert kvm["n2-standard-4"] == kvm["n1-standard-4"] == kvm["c2-standard-4"] == "nested"
    assert kvm["c3-standard-4"] == "proof"
    assert kvm["c3-standard-192-metal"] == "metal"
    assert kvm[cloud.size_without_kvm] == "none"
    assert kvm[cloud.size] == "nested"
    assert cloud.calls() == {}
