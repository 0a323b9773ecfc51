"""The emulated Google Cloud is as strict, as slow and as treacherous as the real one, judged by Google's own schema."""

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import pytest

from tests.clouds import discovery, gce_rules
from tests.clouds.cloud import Cloud, Fault, Machine, Operation
from tests.clouds.gce import Gce
from tests.clouds.gce_rules import PROJECT
from tests.clouds.gce_use import ZONE, until

INSTANCES = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances"


@pytest.fixture
def pace() -> float:
    """Seconds of each step in a machine's life."""
    return 0.04


@pytest.fixture
def cloud(pace: float) -> Iterator[Gce]:
    found = Gce(pace)
    yield found
    found.close()


def ask(cloud: Gce, verb: str, path: str, body: object = None) -> tuple[int, Any, dict[str, str]]:
    host, _, port = cloud.endpoint.removeprefix("http://").partition(":")
    connection = HTTPConnection(host, int(port), timeout=10)
    connection.request(verb, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content else None, dict(answer.headers)


def machine(name: str = "m1", size: str = "n2-standard-4", zone: str = ZONE, **changes: Any) -> dict[str, object]:
    image = f"projects/{PROJECT}/global/images/paddock-host"
    region = zone.rpartition("-")[0]
    body: dict[str, object] = {
        "name": name,
        "machineType": f"zones/{zone}/machineTypes/{size}",
        "labels": {"paddock-controller": "prod"},
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": image}}],
        "networkInterfaces": [{"subnetwork": f"projects/{PROJECT}/regions/{region}/subnetworks/hosts"}],
        "advancedMachineFeatures": {"enableNestedVirtualization": True},
    }
    return body | changes


def insert(cloud: Gce, body: object, request_id: str = "", zone: str = ZONE) -> tuple[int, Any]:
    query = f"?requestId={request_id}" if request_id else ""
    return ask(cloud, "POST", f"/compute/v1/projects/{PROJECT}/zones/{zone}/instances{query}", body)[:2]


def test_it_offers_what_every_cloud_offers(cloud: Gce) -> None:
    offered: Cloud = cloud
    assert offered.size in gce_rules.SIZES
    assert offered.size_without_kvm in gce_rules.SIZES


# The schema


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nestedVirtualization": True}, "nestedVirtualization is not a field of Instance"),
        ({"advancedMachineFeatures": {"nested": True}}, "nested is not a field of AdvancedMachineFeatures"),
        ({"scheduling": {"provisioningModel": "CHEAP"}}, "'CHEAP', none of"),
        ({"scheduling": {"maxRunDuration": {"seconds": "soon"}}}, "not a number in a string"),
        ({"scheduling": {"maxRunDuration": {"seconds": 60}}}, "int, not a string"),
        ({"scheduling": {"minNodeCpus": 2**40}}, "out of int32"),
        ({"disks": [{"autoDelete": "yes"}]}, "disks[0].autoDelete is str, not a boolean"),
        ({"labels": {"a": 1}}, "labels.a is int, not a string"),
        ({"name": "Upper"}, "does not match"),
        ({"metadata": {"kind": "compute#metadata"}}, "kind is read-only"),
        ({"metadata": {"items": [{"key": "user-data"}]}}, "value is missing"),
    ],
)
def test_a_request_that_breaks_the_schema_is_refused_and_recorded(
    cloud: Gce, changes: dict[str, Any], words: str
) -> None:
    status, answer = insert(cloud, machine(**changes))
    assert status == 400
    assert words in answer["error"]["message"]
    assert words in cloud.refused[0]
    assert not cloud.held()


def test_a_machine_without_a_name_is_refused(cloud: Gce) -> None:
    body = machine()
    del body["name"]
    assert insert(cloud, body)[0] == 400
    assert "compute.instances.insert needs it" in cloud.refused[0]


@pytest.mark.parametrize(
    ("verb", "path", "words"),
    [
        ("GET", f"{INSTANCES}/m1?returnPartialSuccess=true", "no parameter returnPartialSuccess"),
        ("GET", f"/compute/v1/projects/{PROJECT}/aggregated/instances?maxResults=many", "maxResults is str"),
        ("GET", f"{INSTANCES}/M_1", "does not match"),
        ("GET", f"/compute/v1/projects/{PROJECT}/machines", "no method"),
        ("PUT", f"{INSTANCES}", "no method"),
    ],
)
def test_a_parameter_or_path_that_google_lacks_is_recorded(cloud: Gce, verb: str, path: str, words: str) -> None:
    assert ask(cloud, verb, path)[0] in {400, 404}
    assert words in cloud.refused[0]


def test_a_body_that_is_no_json_is_refused(cloud: Gce) -> None:
    assert cloud.handle("POST", INSTANCES, b"{")[0] == 400  # type: ignore[index]
    assert cloud.refused


@pytest.mark.parametrize("wrong", [{"status": "READY"}, {"colour": "red"}, {"labels": {"a": 1}}])
def test_an_answer_that_breaks_the_schema_fails_the_test_that_got_it(wrong: dict[str, object]) -> None:
    cloud = Gce()
    name = cloud.plant("host", {})
    cloud.world.vms[ZONE, name].body.update(wrong)
    assert ask(cloud, "GET", f"{INSTANCES}/{name}")[0] == 500
    with pytest.raises(AssertionError, match=next(iter(wrong))):
        cloud.close()


def test_a_method_without_an_answer_has_none() -> None:
    found = discovery.method_of("DELETE", f"/compute/v1/projects/p/zones/{ZONE}/operations/o")
    assert found is not None
    assert discovery.answer_faults(found[0], {})
    assert not discovery.answer_faults(found[0], None)


# Machines and operations


@pytest.mark.parametrize("pace", [0.3])
def test_a_machine_passes_through_its_states_while_its_operation_runs(cloud: Gce) -> None:
    _, operation = insert(cloud, machine())
    seen, worked = [], []

    def running() -> bool:
        worked.append(
            ask(cloud, "GET", f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/operations/{operation['name']}")[1][
                "status"
            ]
        )
        seen.append(ask(cloud, "GET", f"{INSTANCES}/m1")[1]["status"])
        return (seen[-1], worked[-1]) == ("RUNNING", "DONE")

    until(running)
    assert list(dict.fromkeys(seen)) == ["PROVISIONING", "STAGING", "RUNNING"]
    assert list(dict.fromkeys(worked)) == ["PENDING", "RUNNING", "DONE"]


def test_the_same_request_gives_the_same_operation_and_another_one_a_conflict(cloud: Gce) -> None:
    request = str(uuid4())
    first, again = insert(cloud, machine(), request), insert(cloud, machine(), request)
    assert first[1]["name"] == again[1]["name"]
    assert first[1]["clientOperationId"] == request
    status, answer = insert(cloud, machine(), str(uuid4()))
    assert (status, answer["error"]["errors"][0]["reason"]) == (409, "alreadyExists")
    assert [one.kind for one in cloud.held()] == ["host", "disk"]


@pytest.mark.parametrize("request_id", ["00000000-0000-0000-0000-000000000000", "h1-1"])
def test_a_request_id_must_be_a_uuid_and_not_zero(cloud: Gce, request_id: str) -> None:
    assert insert(cloud, machine(), request_id)[0] == 400


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"labels": {"Host": "h1"}}, 400),
        ({"labels": {"host": "Ä"}}, 400),
        ({"disks": []}, 400),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/none"}}]}, 404),
        ({"networkInterfaces": []}, 400),
        ({"networkInterfaces": [{"subnetwork": "regions/us-central1/subnetworks/hosts"}]}, 400),
        ({"machineType": "zones/us-central1-a/machineTypes/n2-standard-4"}, 400),
        ({"minCpuPlatform": "Intel Haswell"}, 400),
        ({"scheduling": {"maxRunDuration": {"seconds": "29"}, "instanceTerminationAction": "DELETE"}}, 400),
        ({"scheduling": {"maxRunDuration": {"seconds": "60"}}}, 400),
        ({"scheduling": {"provisioningModel": "SPOT", "automaticRestart": True}}, 400),
        ({"metadata": {"items": [{"key": "user-data", "value": "x" * 262_145}]}}, 400),
    ],
)
def test_what_the_schema_allows_and_google_does_not_is_refused(
    cloud: Gce, changes: dict[str, Any], status: int
) -> None:
    assert insert(cloud, machine(**changes))[0] == status
    assert not cloud.held()
    assert not cloud.refused


def test_e2_takes_the_flag_silently_and_amd_and_arm_do_not(cloud: Gce) -> None:
    assert insert(cloud, machine("m1", "e2-standard-4"))[0] == 200
    assert insert(cloud, machine("m2", "n2-standard-4"))[0] == 200
    assert (cloud.vmx(ZONE, "m1"), cloud.vmx(ZONE, "m2")) == (False, True)
    assert insert(cloud, machine("m3", "n2d-standard-4"))[0] == 400
    assert insert(cloud, machine("m4", "t2a-standard-4"))[0] == 400


@pytest.mark.parametrize("pace", [0.3])
def test_google_says_404_while_a_machine_still_lives(cloud: Gce) -> None:
    insert(cloud, machine())
    assert ask(cloud, "DELETE", f"{INSTANCES}/m1")[0] == 200
    assert ask(cloud, "DELETE", f"{INSTANCES}/m1")[0] == 404, "a second end during the first one"
    assert cloud.held()
    unseen: list[bool] = []

    def gone() -> bool:
        lives = bool(cloud.held())
        if ask(cloud, "GET", f"{INSTANCES}/m1")[0] == 404:
            unseen.append(lives)
        return not cloud.held()

    until(gone)
    assert True in unseen, "a look-up during the end"


def test_a_machine_that_ran_its_time_is_ended_with_its_disk(cloud: Gce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gce_rules, "SHORTEST_S", 0)
    insert(cloud, machine(scheduling={"maxRunDuration": {"seconds": "0"}, "instanceTerminationAction": "DELETE"}))
    until(lambda: not cloud.held())


# Lists


def test_a_zone_comes_on_several_pages(cloud: Gce) -> None:
    for number in range(5):
        zone = (ZONE, "europe-west4-b")[number % 2]
        assert insert(cloud, machine(f"m{number}", zone=zone), zone=zone)[0] == 200
    pages, token = [], ""
    while True:
        path = f"/compute/v1/projects/{PROJECT}/aggregated/instances?maxResults=500&pageToken={token}"
        page = ask(cloud, "GET", path)[1]
        pages.append(
            {scope: [one["name"] for one in held.get("instances", [])] for scope, held in page["items"].items()}
        )
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert [page[f"zones/{ZONE}"] for page in pages] == [["m0"], ["m2"], ["m4"]]
    assert all(page["zones/us-central1-a"] == [] for page in pages)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", {"m1", "m2"}),
        ('labels.paddock-controller="prod"', {"m1"}),
        ('(labels.paddock-controller="prod")(labels.x="2")', set()),
        ('labels.x = "2" AND labels.paddock-controller="other"', {"m2"}),
        ("labels.paddock-controller like prod", None),
        ('labels.x eq "2"', None),
    ],
)
def test_lists_are_filtered_by_labels_and_nothing_unknown(cloud: Gce, expression: str, names: set[str] | None) -> None:
    insert(cloud, machine("m1"))
    insert(cloud, machine("m2", labels={"paddock-controller": "other", "x": "2"}))
    quoted = expression.replace(" ", "%20").replace('"', "%22").replace("=", "%3D")
    status, page, _ = ask(cloud, "GET", f"/compute/v1/projects/{PROJECT}/aggregated/instances?filter={quoted}")
    if names is None:
        assert status == 400
    else:
        assert {one["name"] for held in page["items"].values() for one in held.get("instances", [])} == names


# Faults, hooks, the end


def test_throttling_comes_in_both_of_googles_forms_and_only_as_often_as_asked(cloud: Gce) -> None:
    cloud.fault(Operation.GET, Fault.THROTTLED, 2)
    first, second, third = (ask(cloud, "GET", f"{INSTANCES}/m1") for _ in range(3))
    assert (first[0], first[1]["error"]["errors"][0]["reason"]) == (403, "rateLimitExceeded")
    assert (second[0], second[2]["Retry-After"]) == (429, "7")
    assert third[0] == 404
    assert cloud.calls() == {"compute.instances.get": 3}


def test_capacity_comes_as_an_answer_and_then_in_the_operation(cloud: Gce) -> None:
    cloud.fault(Operation.CREATE, Fault.CAPACITY, 2)
    assert insert(cloud, machine())[0] == 503
    status, operation = insert(cloud, machine())
    assert status == 200
    path = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/operations/{operation['name']}"
    until(lambda: ask(cloud, "GET", path)[1]["status"] == "DONE")
    assert ask(cloud, "GET", path)[1]["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    assert not cloud.held()


def test_a_lost_answer_has_happened(cloud: Gce) -> None:
    cloud.fault(Operation.CREATE, Fault.LOST)
    with pytest.raises(ConnectionError):
        insert(cloud, machine())
    assert [one.kind for one in cloud.held()] == ["host", "disk"]


def test_a_late_machine_is_held_and_not_seen(cloud: Gce) -> None:
    cloud.fault(Operation.CREATE, Fault.LATE)
    insert(cloud, machine())
    assert cloud.held()
    assert ask(cloud, "GET", f"{INSTANCES}/m1")[0] == 404
    until(lambda: ask(cloud, "GET", f"{INSTANCES}/m1")[0] == 200)


def test_boot_and_end_are_told_from_another_thread(cloud: Gce) -> None:
    told: list[object] = []
    threads: set[str] = set()

    def boot(found: Machine) -> None:
        told.append(found)
        threads.add(threading.current_thread().name)

    cloud.on_boot = boot
    cloud.on_end = told.append
    insert(cloud, machine(metadata={"items": [{"key": "user-data", "value": "#cloud-config"}]}))
    until(lambda: told)
    ask(cloud, "DELETE", f"{INSTANCES}/m1")
    until(lambda: len(told) == 2)
    booted = Machine("m1", "m1", ZONE, {"paddock-controller": "prod"}, "#cloud-config")
    assert told == [booted, "m1"]
    assert threads == {"gce-hooks"}


def test_a_hook_that_fails_fails_the_test() -> None:
    cloud = Gce()
    broke = threading.Event()

    def hook(found: Machine) -> None:
        broke.set()
        raise RuntimeError(found.name)

    cloud.on_boot = hook
    insert(cloud, machine())
    assert broke.wait(10)
    with pytest.raises(AssertionError, match="m1"):
        cloud.close()


@pytest.mark.parametrize("kind", ["host", "disk", "nic"])
def test_what_is_planted_is_held_and_listed(cloud: Gce, kind: str) -> None:
    name = cloud.plant(kind, {"paddock-controller": "prod"})
    assert name in {one.id for one in cloud.held()}
    assert all(one.tags == {"paddock-controller": "prod"} for one in cloud.held())
    listed = {"host": "instances", "disk": "disks", "nic": "addresses"}[kind]
    page = ask(cloud, "GET", f"/compute/v1/projects/{PROJECT}/aggregated/{listed}")[1]
    assert [one["name"] for held in page["items"].values() for one in held.get(listed, [])] == [name]


def test_closing_ends_threads_and_frees_the_port() -> None:
    before = set(threading.enumerate())
    cloud = Gce()
    kept = HTTPConnection("127.0.0.1", int(cloud.endpoint.rpartition(":")[2]), timeout=10)
    kept.request("GET", f"{INSTANCES}/m1")
    kept.getresponse().read()
    cloud.close()
    assert kept.sock.recv(1) == b"", "a kept connection ends too"
    kept.close()
    until(lambda: not set(threading.enumerate()) - before)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", int(cloud.endpoint.rpartition(":")[2])))
