"""What exists in the emulated EC2, when it is seen, and how its calls fail: a provider's faults must show in it."""

import socket
import threading

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.clouds.cloud import Fault, Machine, Operation
from tests.clouds.ec2 import Ec2
from tests.clouds.ec2_client import EVERY, client, cloud, code, instances, launch, shared, state
from tests.providers.conftest import until

__all__ = ["cloud", "shared"]


# What exists


def test_all_parts_carry_their_tags_at_once_and_go_with_the_instance(cloud: Ec2) -> None:
    before = {one.id for one in cloud.held()}
    id = launch(cloud, "parts")["InstanceId"]
    made = [one for one in cloud.held() if one.id not in before]
    assert sorted(one.kind for one in made) == ["disk", "host", "nic"]
    assert all(one.tags == {"paddock-controller": "c1"} and one.zone == "us-east-1a" for one in made)
    client(cloud).terminate_instances(InstanceIds=[id])
    until(lambda: state(cloud, id) == "terminated", "it is terminated")
    assert not {one.id for one in cloud.held()} & {one.id for one in made}


def test_an_interface_without_the_tags_of_its_kind_has_none(cloud: Ec2) -> None:
    before = {one.id for one in cloud.held()}
    launch(cloud, "untagged", TagSpecifications=EVERY[:2])
    assert [one.tags for one in cloud.held() if one.kind == "nic" and one.id not in before] == [{}]


def test_an_interface_that_shall_stay_outlives_the_instance(cloud: Ec2) -> None:
    before = {one.id for one in cloud.held()}
    subnet = cloud.ground.regions[0].subnets["us-east-1a"]
    id = launch(cloud, "leak", NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet}])["InstanceId"]
    client(cloud).terminate_instances(InstanceIds=[id])
    until(lambda: state(cloud, id) == "terminated", "it is terminated")
    left = [one for one in cloud.held() if one.id not in before]
    assert [one.kind for one in left] == ["nic"]
    client(cloud).delete_network_interface(NetworkInterfaceId=left[0].id)


def test_an_interface_in_use_cannot_be_deleted(cloud: Ec2) -> None:
    nic = launch(cloud, "held")["NetworkInterfaces"][0]["NetworkInterfaceId"]
    with pytest.raises(ClientError, match="currently in use"):
        client(cloud).delete_network_interface(NetworkInterfaceId=nic)
    assert nic in {one.id for one in cloud.held()}


@pytest.mark.parametrize("kind", ["host", "disk", "nic", "address"])
def test_what_is_planted_is_held_with_its_tags(cloud: Ec2, kind: str) -> None:
    id = cloud.plant(kind, {"team": "billing"})
    assert [(one.kind, one.tags) for one in cloud.held() if one.id == id] == [(kind, {"team": "billing"})]


def test_another_kind_cannot_be_planted(cloud: Ec2) -> None:
    with pytest.raises(ValueError, match="host, disk, nic and address"):
        cloud.plant("bucket", {})


# Time


def test_an_instance_is_pending_before_it_runs_and_shutting_down_before_it_is_terminated() -> None:
    slow = Ec2(boot_s=3600, end_s=3600)
    try:
        id = launch(slow, "slow")["InstanceId"]
        assert state(slow, id) == "pending"
        client(slow).terminate_instances(InstanceIds=[id])
        assert state(slow, id) == "shutting-down"
        assert id in {one.id for one in slow.held()}
        answer = client(slow).terminate_instances(InstanceIds=[id])
        assert answer["TerminatingInstances"][0]["CurrentState"]["Name"] == "shutting-down"
    finally:
        slow.close()


def test_an_instance_that_is_ended_before_it_runs_never_boots() -> None:
    slow = Ec2(boot_s=2, end_s=2.5)
    try:
        booted: list[Machine] = []
        ended: list[str] = []
        slow.on_boot, slow.on_end = booted.append, ended.append
        api, id = client(slow), launch(slow, "short")["InstanceId"]
        api.terminate_instances(InstanceIds=[id])
        until(lambda: ended == [id], "its end is told")
        assert booted == []
    finally:
        slow.close()


def test_hooks_are_called_once_from_another_thread_with_what_the_instance_knows(cloud: Ec2) -> None:
    booted: list[tuple[Machine, str]] = []
    ended: list[str] = []
    cloud.on_boot = lambda machine: booted.append((machine, threading.current_thread().name))
    cloud.on_end = ended.append
    id = launch(cloud, "hooks", UserData="#cloud-config\nä\n")["InstanceId"]
    until(lambda: booted, "it boots")
    machine, thread = booted[0]
    assert machine == Machine(id, "", "us-east-1a", {"paddock-controller": "c1"}, "#cloud-config\nä\n")
    assert thread != threading.main_thread().name
    for _ in range(2):
        client(cloud).terminate_instances(InstanceIds=[id])
    until(lambda: ended, "its end is told")
    until(lambda: state(cloud, id) == "terminated", "it is terminated")
    assert (len(booted), ended) == (1, [id])


def test_an_instance_may_end_by_itself_and_say_why(cloud: Ec2) -> None:
    id = launch(cloud, "itself")["InstanceId"]
    until(lambda: state(cloud, id) == "running", "it runs")
    cloud.end(id)
    until(lambda: state(cloud, id) == "terminated", "it is terminated")
    reason = instances(client(cloud), {"Name": "instance-id", "Values": [id]})[0]["StateReason"]
    assert reason["Code"] == "Client.InstanceInitiatedShutdown"


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        (Fault.THROTTLED, 503, "RequestLimitExceeded"),
        (Fault.TRANSIENT, 500, "InternalError"),
        (Fault.CAPACITY, 500, "InsufficientInstanceCapacity"),
        (Fault.QUOTA, 400, "VcpuLimitExceeded"),
        (Fault.AUTH, 403, "UnauthorizedOperation"),
    ],
)
def test_a_fault_fails_so_many_launches_and_no_more(cloud: Ec2, fault: Fault, status: int, expected: str) -> None:
    cloud.fault(Operation.CREATE, fault, times=2)
    before = {one.id for one in cloud.held()}
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            launch(cloud, f"fault-{fault}")
        assert code(error) == expected
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert {one.id for one in cloud.held()} <= before
    assert launch(cloud, f"fault-{fault}")["InstanceId"]


def test_each_operation_has_its_own_faults(cloud: Ec2) -> None:
    api, id = client(cloud), launch(cloud, "own")["InstanceId"]
    for operation in (Operation.GET, Operation.LIST, Operation.TERMINATE):
        cloud.fault(operation, Fault.THROTTLED)
    launch(cloud, "own")
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        instances(api, {"Name": "client-token", "Values": ["own"]})
    assert instances(api, {"Name": "client-token", "Values": ["own"]})
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        instances(api, {"Name": "tag:paddock-controller", "Values": ["c1"]})
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        api.terminate_instances(InstanceIds=[id])
    assert state(cloud, id) in {"pending", "running"}


def test_a_lost_answer_happened(cloud: Ec2) -> None:
    cloud.fault(Operation.CREATE, Fault.LOST)
    with pytest.raises(HTTPClientError):
        launch(cloud, "lost")
    found = instances(client(cloud), {"Name": "client-token", "Values": ["lost"]})
    assert [one["InstanceId"] for one in found] == [launch(cloud, "lost")["InstanceId"]]


def test_a_late_instance_is_unknown_to_reads_and_ends() -> None:
    cloud = Ec2(late_s=3600)
    try:
        api = client(cloud)
        cloud.fault(Operation.CREATE, Fault.LATE)
        id = launch(cloud, "late")["InstanceId"]
        assert id in {one.id for one in cloud.held()}
        assert instances(api) == []
        for call in (api.describe_instances, api.terminate_instances):
            with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
                call(InstanceIds=[id])
        assert launch(cloud, "late")["InstanceId"] == id, "a token is known at once"
    finally:
        cloud.close()


def test_a_late_instance_is_seen_in_the_end(cloud: Ec2) -> None:
    cloud.fault(Operation.CREATE, Fault.LATE)
    id = launch(cloud, "later")["InstanceId"]
    assert until(lambda: state(cloud, id), "it is seen")


def test_what_cannot_happen_cannot_be_ordered(cloud: Ec2) -> None:
    with pytest.raises(ValueError, match="no quota on list"):
        cloud.fault(Operation.LIST, Fault.QUOTA)


def test_an_unknown_key_is_refused(cloud: Ec2) -> None:
    with pytest.raises(ClientError) as error:
        client(cloud, key="AKIASOMEBODYELSE0001").describe_instances()
    assert code(error) == "AuthFailure"


# The server


def test_calls_are_counted_by_action(cloud: Ec2) -> None:
    before = cloud.calls()
    instances(client(cloud))
    after = cloud.calls()
    assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)} == {
        "DescribeInstances": 1
    }


def test_two_emulators_share_nothing_and_leave_neither_port_nor_thread() -> None:
    threads = set(threading.enumerate())
    one, two = Ec2(boot_s=30), Ec2()
    try:
        launch(one, "one")
        assert [held.kind for held in one.held()]
        assert two.held() == ()
    finally:
        one.close()
        two.close()
    host, port = one.endpoint.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=2)
    until(lambda: set(threading.enumerate()) <= threads, "no thread is left")
