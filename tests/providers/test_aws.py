"""The EC2 provider against the emulated cloud: what it asks for, what it believes, and what it ends."""

from dataclasses import replace

import pytest

from providers.aws import Aws
from providers.contract import ErrorClass, HostState, ProviderError
from tests.clouds.cloud import Fault, Operation
from tests.clouds.ec2 import Ec2
from tests.clouds.ec2_client import client
from tests.providers.conftest import Bench, refused, until

pytestmark = pytest.mark.parametrize("cloud", ["aws"], indirect=True)
PART = {"instance", "volume", "network-interface"}


def asked(bench: Bench, action: str = "RunInstances") -> dict[str, str]:
    """The form of the last request of an action."""
    assert isinstance(bench.cloud, Ec2)
    return dict(next(one.form for one in reversed(bench.cloud.requests) if one.action == action))


def other_process(bench: Bench, **changes: object) -> Aws:
    """The provider of a worker that remembers nothing."""
    assert isinstance(bench.provider, Aws)
    return Aws(replace(bench.provider.ground, **changes))  # type: ignore[arg-type]


# What a launch asks


def test_a_launch_names_its_token_and_all_its_parts_carry_name_and_tags(bench: Bench) -> None:
    order = bench.order()
    bench.provider.create(order)
    form = asked(bench)
    assert form["ClientToken"] == str(order.token)
    assert (form["MinCount"], form["MaxCount"]) == ("1", "1")
    specs = {form[f"TagSpecification.{n}.ResourceType"]: n for n in (1, 2, 3)}
    assert set(specs) == PART
    for n in specs.values():
        tags = {
            form[f"TagSpecification.{n}.Tag.{m}.Key"]: form[f"TagSpecification.{n}.Tag.{m}.Value"] for m in range(1, 8)
        }
        assert tags == {**order.tags, "Name": order.name}


def test_a_launch_hides_the_metadata_from_guests_and_leaves_nothing_behind(bench: Bench) -> None:
    assert isinstance(bench.provider, Aws)
    bench.provider.create(bench.order())
    form = asked(bench)
    assert form["MetadataOptions.HttpTokens"] == "required"
    assert form["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert form["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert form["NetworkInterface.1.DeleteOnTermination"] == "true"
    assert form["NetworkInterface.1.SecurityGroupId.1"] == bench.provider.ground.regions[0].security_groups[0]
    assert form["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    assert form["BlockDeviceMapping.1.Ebs.VolumeSize"] == "64"
    assert not [key for key in form if key.startswith(("BlockDeviceMapping.2", "IamInstanceProfile", "InstanceMarket"))]


def test_every_disk_of_the_image_goes_with_the_machine(bench: Bench) -> None:
    assert isinstance(bench.cloud, Ec2)
    disks = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 100}}, {"DeviceName": "/dev/xvdb", "Ebs": {}}]
    image = {"BlockDeviceMappings": disks, "RootDeviceName": "/dev/xvda"}
    assert isinstance(bench.provider, Aws)
    provider = other_process(bench)
    provider._images._known["us-east-1", "ami-00000001"] = image
    assert provider._images.disks("us-east-1", "ami-00000001", 64) == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"DeleteOnTermination": True, "Encrypted": True, "VolumeSize": 100, "VolumeType": "gp3"},
        },
        {"DeviceName": "/dev/xvdb", "Ebs": {"DeleteOnTermination": True, "Encrypted": True}},
    ]


@pytest.mark.parametrize(
    ("size", "nested"), [("m8i.large", "enabled"), ("c7i-flex.large", "enabled"), ("m5.metal", None)]
)
def test_nesting_is_asked_for_only_where_it_is_advertised(bench: Bench, size: str, nested: str | None) -> None:
    bench.provider.create(bench.order(size=size))
    assert asked(bench).get("CpuOptions.NestedVirtualization") == nested


def test_what_a_size_offers_is_asked_once(bench: Bench) -> None:
    provider = other_process(bench)
    before = bench.cloud.calls().get("DescribeInstanceTypes", 0)
    for _ in range(3):
        provider.create(bench.order())
    assert bench.cloud.calls()["DescribeInstanceTypes"] == before + 1


@pytest.mark.parametrize(
    ("profile", "key"), [("paddock-host", "Name"), ("arn:aws:iam::1:instance-profile/paddock-host", "Arn")]
)
def test_an_instance_profile_is_given_by_name_or_arn(bench: Bench, profile: str, key: str) -> None:
    error = refused(lambda: other_process(bench, instance_profile=profile).create(bench.order()))
    assert asked(bench)[f"IamInstanceProfile.{key}"] == profile
    assert error.kind is not ErrorClass.TRANSIENT, "the emulated account has no profile"


def test_a_spot_machine_is_asked_for_once_and_tagged_as_a_request_too(bench: Bench) -> None:
    bench.provider.create(bench.order(spot=True))
    form = asked(bench)
    assert form["InstanceMarketOptions.MarketType"] == "spot"
    assert form["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert {form[f"TagSpecification.{n}.ResourceType"] for n in (1, 2, 3, 4)} == PART | {"spot-instances-request"}


def test_nesting_that_spot_refuses_is_the_callers_to_change(bench: Bench) -> None:
    assert isinstance(bench.cloud, Ec2)
    bench.cloud.refuses_nested_spot = True
    try:
        error = refused(lambda: bench.provider.create(bench.order(spot=True)))
    finally:
        bench.cloud.refuses_nested_spot = False
    assert (error.kind, error.code) == (ErrorClass.INVALID, "InvalidParameterCombination")


def test_an_order_names_its_own_image_and_a_missing_one_is_told(bench: Bench) -> None:
    error = refused(lambda: bench.provider.create(bench.order(image="ami-0123456789abcdef0")))
    assert (error.kind, error.code) == (ErrorClass.INVALID, "InvalidAMIID.NotFound")
    assert "ami-0123456789abcdef0" in str(error)
    assert "set another image" in str(error)


@pytest.mark.parametrize("fault", [Fault.CAPACITY, Fault.TRANSIENT, Fault.THROTTLED])
def test_each_request_is_sent_once(bench: Bench, fault: Fault) -> None:
    before = bench.cloud.calls().get("RunInstances", 0)
    bench.cloud.fault(Operation.CREATE, fault)
    refused(lambda: bench.provider.create(bench.order()))
    assert bench.cloud.calls()["RunInstances"] == before + 1


def test_a_request_may_take_so_long_and_no_longer(bench: Bench) -> None:
    assert isinstance(bench.provider, Aws)
    config = bench.provider._clients._of("us-east-1").meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 60)


# What is believed


def test_another_process_finds_the_machine_by_its_token(bench: Bench) -> None:
    order = bench.order()
    item = bench.provider.create(order)
    found = other_process(bench).get(order)
    assert found is not None
    assert found.id == item.id


def test_after_an_answer_that_says_no_there_surely_is_none(bench: Bench) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, Fault.CAPACITY)
    refused(lambda: bench.provider.create(order))
    assert bench.provider.get(order) is None


def test_after_no_answer_there_is_none_only_once_ec2_has_settled(bench: Bench) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, Fault.TRANSIENT)
    refused(lambda: bench.provider.create(order))
    error = refused(lambda: bench.provider.get(order))
    assert (error.kind, error.code, error.retry_after_s) == (ErrorClass.TRANSIENT, "unsettled", 2.0)
    until(lambda: bench.looked(order) is None and not _unsettled(bench, order), "it surely is not there")


def _unsettled(bench: Bench, order: object) -> bool:
    try:
        bench.provider.get(order)  # type: ignore[arg-type]
    except ProviderError as error:
        return error.code == "unsettled"
    return False


def test_a_machine_that_ended_by_itself_is_gone_and_says_why(bench: Bench) -> None:
    assert isinstance(bench.cloud, Ec2)
    order = bench.order()
    item = bench.provider.create(order)
    bench.cloud.end(item.id, "Server.SpotInstanceTermination", "Spot instance termination")
    assert bench.gone(order)
    found = bench.provider.get(order)
    assert found is not None
    assert found.why == "Server.SpotInstanceTermination: Spot instance termination"
    assert bench.provider.create(order) == found, "an ended attempt is not made again"


def test_a_stopped_machine_will_not_run_again_and_can_be_ended(bench: Bench) -> None:
    order = bench.order()
    bench.provider.create(order)
    item = bench.running(order)
    client(bench.cloud).stop_instances(InstanceIds=[item.id])  # type: ignore[arg-type]
    found = bench.provider.get(order)
    assert found is not None
    assert (found.state, found.why.partition(" ")[0]) == (HostState.DELETING, "stopped")
    assert [one.id for one in bench.listed() if one.kind == "host"] == [item.id]
    bench.end(found)
    assert bench.gone(order)


def test_of_two_machines_with_one_token_the_living_one_in_the_orders_zone_is_answered(bench: Bench) -> None:
    order = bench.order()
    first = bench.provider.create(order)
    form = asked(bench)
    api = client(bench.cloud)  # type: ignore[arg-type]
    assert isinstance(bench.provider, Aws)
    away = bench.provider.ground.regions[0].subnets["us-east-1b"]
    # The trap itself, as a program without a look before would fall into it.
    made = api.run_instances(**_same(form, away))["Instances"][0]["InstanceId"]
    assert made != first.id
    assert [bench.running(replace(order, zone=zone)).id for zone in ("us-east-1a", "us-east-1b")] == [first.id, made]
    bench.end(first)
    until(lambda: bench.looked(order) and bench.running(order).id == made, "the living one is answered")


def _same(form: dict[str, str], subnet: str) -> dict[str, object]:
    tags = [
        {"Key": form[f"TagSpecification.1.Tag.{n}.Key"], "Value": form[f"TagSpecification.1.Tag.{n}.Value"]}
        for n in range(1, 8)
    ]
    kinds = [form[f"TagSpecification.{n}.ResourceType"] for n in (1, 2, 3)]
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "DeleteOnTermination": True}
    disk = {"DeleteOnTermination": True, "Encrypted": True, "VolumeSize": 64, "VolumeType": "gp3"}
    return {
        "ImageId": form["ImageId"],
        "InstanceType": form["InstanceType"],
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": form["ClientToken"],
        "NetworkInterfaces": [nic | {"Groups": [form["NetworkInterface.1.SecurityGroupId.1"]]}],
        "BlockDeviceMappings": [{"DeviceName": form["BlockDeviceMapping.1.DeviceName"], "Ebs": disk}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "CpuOptions": {"NestedVirtualization": "enabled"},
        "UserData": "#cloud-config\nhostname: paddock\n",
    }
