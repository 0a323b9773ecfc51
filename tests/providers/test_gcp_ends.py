"""Google's look-ups prove little: failures that only an operation tells, absence, lists with holes, and ends."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import compute_v1

from providers.contract import ErrorClass, HostState, Item
from providers.gcp import Gcp
from providers.gcp.story import UNSEEN, read
from tests.clouds.cloud import Fault, Operation
from tests.clouds.gce import Gce
from tests.clouds.gce_use import ZONE, failed, order, refused, running, until


@pytest.fixture
def pace() -> float:
    """Seconds of each step in a machine's life."""
    return 0.04


@pytest.fixture
def cloud(pace: float) -> Iterator[Gce]:
    found = Gce(pace)
    yield found
    found.close()
    assert not found.refused, "a request broke Google's schema"


# Failures that only the operation tells


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", 503, ErrorClass.CAPACITY),
        ("QUOTA_EXCEEDED", 403, ErrorClass.QUOTA),
        ("INTERNAL_ERROR", 500, ErrorClass.CAPACITY),  # the same token would give the same failure for ever
        ("PERMISSIONS_ERROR", 403, ErrorClass.AUTH),
    ],
)
def test_a_creation_that_fails_in_its_operation_is_told(cloud: Gce, code: str, status: int, kind: ErrorClass) -> None:
    cloud.fail_in_operation(code, "it did not work", status)
    found = failed(cloud, order())
    assert found.state is HostState.DELETING
    assert found.why.startswith(f"{kind}: {code}: it did not work")
    error = refused(lambda: cloud.provider.create(order()))
    assert (error.kind, error.code, error.again) == (kind, code, False)


@pytest.mark.parametrize("leave_disk", [False, True])
def test_the_end_of_a_failed_creation_takes_its_disk_and_its_record(cloud: Gce, leave_disk: bool) -> None:
    cloud.fail_in_operation("ZONE_RESOURCE_POOL_EXHAUSTED", leave_disk=leave_disk)
    wanted = order()
    found = failed(cloud, wanted)
    assert [one.kind for one in cloud.held()] == (["disk"] if leave_disk else [])
    until(lambda: cloud.provider.terminate(found) is HostState.GONE)
    assert not cloud.held()
    assert cloud.provider.get(wanted) is None
    assert cloud.provider.terminate(found) is HostState.GONE


def test_a_disk_that_is_not_of_the_attempt_stays(cloud: Gce) -> None:
    cloud.fail_in_operation("ZONE_RESOURCE_POOL_EXHAUSTED")
    found = failed(cloud, order())
    cloud.world.add_disk(ZONE, f"{order().name}-boot", order(attempt=2).tags)
    assert cloud.provider.terminate(found) is HostState.GONE
    assert [one.kind for one in cloud.held()] == ["disk"]


# Absence


@pytest.mark.parametrize("pace", [0.3])
def test_a_404_during_the_end_is_no_proof(cloud: Gce) -> None:
    wanted = order()
    item = running(cloud, wanted)
    assert cloud.provider.get(order(attempt=2)) is None, "it knows the way to operations before it counts"
    assert cloud.provider.terminate(item) is HostState.DELETING
    states = []

    def gone() -> bool:
        before = bool(cloud.held())
        states.append((cloud.provider.get(wanted), cloud.provider.terminate(item)))
        return not before

    until(gone)
    assert not cloud.held()
    assert states[-1] == (None, HostState.GONE)
    assert all(found is None or found.state is HostState.DELETING for found, _ in states)
    assert states[0][1] is HostState.DELETING, "a second end during the first: Google says 404"


def test_a_machine_that_is_not_shown_yet_is_pending(cloud: Gce) -> None:
    cloud.fault(Operation.CREATE, Fault.LATE)
    cloud.provider.create(order())
    found = cloud.provider.get(order())
    assert found is not None
    assert found.state is HostState.PENDING
    assert found.created is not None


@pytest.mark.parametrize(
    ("settings", "zone", "words"),
    [({"project": "no-such-project"}, ZONE, "the project does not exist"), ({}, "us-east1-b", "zone does not exist")],
)
def test_a_404_of_project_or_zone_is_not_the_absence_of_a_machine(
    cloud: Gce, settings: dict[str, Any], zone: str, words: str
) -> None:
    provider = Gcp(cloud.ground(**settings))
    item = Item(id="ph-1", kind="host", name="ph-1", state=HostState.RUNNING, zone=zone)
    for call in (lambda: provider.get(order(zone=zone)), lambda: provider.terminate(item)):
        error = refused(call)
        assert error.kind is ErrorClass.INVALID
        assert words in str(error)


@pytest.mark.parametrize(("kind", "place"), [("disk", ZONE), ("address", "europe-west4"), ("address", "global")])
def test_a_404_of_the_project_is_not_the_end_of_a_thing(cloud: Gce, kind: str, place: str) -> None:
    item = Item(id="x", kind=kind, name="x", state=HostState.RUNNING, zone=place)
    assert cloud.provider.terminate(item) is HostState.GONE
    assert "project" in str(refused(lambda: Gcp(cloud.ground(project="no-such-project")).terminate(item)))


def operation(kind: str, status: str, minutes: float, code: str = "") -> compute_v1.Operation:
    """One that began so many minutes after twelve."""
    began = (datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes)).isoformat()
    errors = [compute_v1.Errors(code=code)] if code else []
    return compute_v1.Operation(
        name=f"{kind}-{minutes}",
        operation_type=kind,
        status=status,
        insert_time=began,
        end_time=began if status == "DONE" else "",
        error=compute_v1.Error(errors=errors),
    )


@pytest.mark.parametrize(
    ("operations", "state"),
    [
        ([], HostState.GONE),
        ([operation("insert", "RUNNING", 0)], HostState.PENDING),
        ([operation("insert", "DONE", 9.5)], HostState.PENDING),  # half a minute ago: perhaps not shown yet
        ([operation("insert", "DONE", 0)], HostState.GONE),
        ([operation("insert", "DONE", 9.5), operation("delete", "DONE", 9.6)], HostState.GONE),
        ([operation("delete", "PENDING", 9.6), operation("insert", "DONE", 9.5)], HostState.DELETING),
        ([operation("insert", "DONE", 9.5), operation("delete", "DONE", 9.6, "INTERNAL_ERROR")], HostState.PENDING),
        ([operation("insert", "DONE", 9.5), operation("delete", "DONE", 9.4)], HostState.PENDING),  # of an older one
    ],
)
def test_operations_tell_what_a_404_hides(operations: list[compute_v1.Operation], state: HostState) -> None:
    assert read(operations, datetime(2026, 1, 1, 12, 10, tzinfo=UTC)).state is state


def test_a_machine_counts_as_not_yet_shown_for_a_minute() -> None:
    made = [operation("insert", "DONE", 0)]
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert read(made, noon + UNSEEN - timedelta(seconds=1)).state is HostState.PENDING
    assert read(made, noon + UNSEEN).state is HostState.GONE


@pytest.mark.parametrize("zone", ["", "europe-west4-a/instances/x", "Z"])
def test_what_is_no_name_of_googles_is_never_asked_for(cloud: Gce, zone: str) -> None:
    item = Item(id="ph-1", kind="host", name="ph-1", state=HostState.RUNNING, zone=zone)
    odd = Item(id='.*" ne "', kind="host", name="ph-1", state=HostState.RUNNING, zone=ZONE)
    for call in (
        lambda: cloud.provider.get(order(zone=zone)),
        lambda: cloud.provider.terminate(item),
        lambda: cloud.provider.terminate(odd),
    ):
        assert refused(call).kind is ErrorClass.INVALID
    assert cloud.calls() == {}


def test_an_end_that_reads_do_not_see_yet_is_an_end(cloud: Gce) -> None:
    wanted = order()
    item = running(cloud, wanted)
    cloud.fault(Operation.TERMINATE, Fault.LATE)
    assert cloud.provider.terminate(item) is HostState.DELETING
    found = cloud.provider.get(wanted)
    assert found is not None
    assert found.state is HostState.RUNNING, "the fault was not a late one"
    until(lambda: cloud.provider.get(wanted) is None)
    assert not cloud.held()


# Lists


def test_a_list_joins_all_pages_and_leaves_out_what_is_anothers(cloud: Gce) -> None:
    wanted = [order(host=f"h{number}", zone=cloud.zones[number % 3]) for number in range(5)]
    for one in wanted:
        cloud.provider.create(one)
    cloud.plant("host", {"paddock-controller": "other"})
    cloud.plant("host", {})
    address = cloud.plant("nic", {"paddock-controller": "prod", "paddock-protect": "yes"})
    found = cloud.provider.list_owned("prod")
    assert found.complete
    hosts = {one.id: one for one in found.items if one.kind == "host"}
    disks = {one.attached_to: one for one in found.items if one.kind == "disk"}
    assert set(hosts) == set(disks) == {one.name for one in wanted}
    assert {(one.host, one.zone, one.attempt) for one in hosts.values()} == {(o.host, o.zone, 1) for o in wanted}
    assert [(one.id, one.zone, one.protected) for one in found.items if one.kind == "address"] == [
        (address, "europe-west4", True)
    ]
    assert cloud.calls()["compute.instances.aggregatedList"] == 3


@pytest.mark.parametrize("how", ["warning", "unreachables"])
def test_a_zone_that_cannot_be_read_makes_the_list_incomplete(cloud: Gce, how: str) -> None:
    cloud.provider.create(order(zone="us-central1-a"))
    cloud.provider.create(order(host="h2"))
    cloud.unreachable("zones/us-central1-a", how)
    found = cloud.provider.list_owned("prod")
    assert {one.host for one in found.items} == {"h2"}
    assert not found.complete
    assert {scope.partition(": ")[0] for scope in found.missing_scopes} == {"instances", "disks"}
    assert all("zones/us-central1-a" in scope for scope in found.missing_scopes)


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT, Fault.AUTH, Fault.LOST])
def test_a_list_that_fails_is_incomplete_and_keeps_the_rest(cloud: Gce, fault: Fault) -> None:
    cloud.provider.create(order())
    cloud.fault(Operation.LIST, fault)
    found = cloud.provider.list_owned("prod")
    assert [one.kind for one in found.items] == ["disk"]
    assert not found.complete
    assert found.missing_scopes[0].startswith("instances: ")


@pytest.mark.parametrize("controller", ["", 'prod" OR labels.x="y', "Prod"])
def test_a_controller_that_is_no_label_is_not_asked_for(cloud: Gce, controller: str) -> None:
    assert refused(lambda: cloud.provider.list_owned(controller)).kind is ErrorClass.INVALID
    assert cloud.calls() == {}


def test_a_stopped_machine_is_not_forgotten(cloud: Gce) -> None:
    running(cloud, order())
    cloud.stop(ZONE, order().name)
    found = cloud.provider.get(order())
    assert found is not None
    assert (found.state, found.why) == (HostState.RUNNING, "stopped at Google (TERMINATED)")


# Side resources


@pytest.mark.parametrize("kind", ["disk", "address"])
def test_a_resource_that_lies_alone_is_ended(cloud: Gce, kind: str) -> None:
    cloud.plant(kind, {"paddock-controller": "prod"})
    (item,) = cloud.provider.list_owned("prod").items
    assert item.kind == kind
    assert cloud.provider.terminate(item) is HostState.DELETING
    until(lambda: cloud.provider.terminate(item) is HostState.GONE)
    assert not cloud.held()


def test_an_address_of_no_region_is_ended(cloud: Gce) -> None:
    cloud.world.add_address("global", "everywhere", {"paddock-controller": "prod"})
    (item,) = cloud.provider.list_owned("prod").items
    assert item.zone == "global"
    cloud.provider.terminate(item)
    until(lambda: not cloud.held())


def test_a_disk_in_use_goes_with_its_machine(cloud: Gce) -> None:
    cloud.provider.create(order())
    disk = next(one for one in cloud.provider.list_owned("prod").items if one.kind == "disk")
    assert refused(lambda: cloud.provider.terminate(disk)).again
    nic = Item(id="nic0", kind="nic", name="nic0", state=HostState.RUNNING)
    assert refused(lambda: cloud.provider.terminate(nic)).kind is ErrorClass.INVALID
