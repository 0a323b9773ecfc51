"""The emulated EC2 takes and refuses launches as the real one documents, where moto takes all."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.clouds.ec2 import Ec2
from tests.clouds.ec2_client import TAGS, client, cloud, code, instances, launch, shared

__all__ = ["cloud", "shared"]


# Tokens


def test_one_token_is_one_instance_also_at_the_same_time(cloud: Ec2) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda _: launch(cloud, "same")["InstanceId"], range(4)))
    assert len(ids) == 1


def test_one_token_in_two_zones_is_two_instances(cloud: Ec2) -> None:
    ids = {launch(cloud, "trap", zone)["InstanceId"] for zone in ("us-east-1a", "us-east-1b", "us-east-1a")}
    assert len(ids) == 2
    found = instances(client(cloud), {"Name": "client-token", "Values": ["trap"]})
    assert {one["InstanceId"] for one in found} == ids


def test_one_token_with_other_words_is_refused(cloud: Ec2) -> None:
    launch(cloud, "words", UserData="one")
    for zone in ("us-east-1a", "us-east-1b"):
        with pytest.raises(ClientError) as error:
            launch(cloud, "words", zone, UserData="two")
        assert code(error) == "IdempotentParameterMismatch"


def test_the_token_of_an_ended_instance_starts_none(cloud: Ec2) -> None:
    id = launch(cloud, "ended")["InstanceId"]
    client(cloud).terminate_instances(InstanceIds=[id])
    with pytest.raises(ClientError) as error:
        launch(cloud, "ended")
    assert code(error) == "IdempotentInstanceTerminated"


def test_without_a_token_each_launch_is_an_instance(cloud: Ec2) -> None:
    assert len({launch(cloud, "", ClientToken=None)["InstanceId"] for _ in range(2)}) == 2


def test_a_token_that_nobody_used_has_no_instance(cloud: Ec2) -> None:
    launch(cloud, "used")
    assert instances(client(cloud), {"Name": "client-token", "Values": ["unused"]}) == []


# What a launch is asked


def test_nesting_is_shown_where_it_was_asked_for(cloud: Ec2) -> None:
    nested = launch(cloud, "nested", CpuOptions={"NestedVirtualization": "enabled"})
    assert nested["CpuOptions"]["NestedVirtualization"] == "enabled"
    plain = launch(cloud, "plain")
    found = {one["InstanceId"]: one.get("CpuOptions", {}) for one in instances(client(cloud))}
    assert found[nested["InstanceId"]]["NestedVirtualization"] == "enabled"
    assert "NestedVirtualization" not in found[plain["InstanceId"]]


@pytest.mark.parametrize("size", ["m5.large", "m5.metal", "m8i.metal-48xl"])
def test_nesting_is_refused_where_it_is_not_advertised(cloud: Ec2, size: str) -> None:
    with pytest.raises(ClientError) as error:
        launch(cloud, f"no-{size}", InstanceType=size, CpuOptions={"NestedVirtualization": "enabled"})
    assert code(error) == "UnsupportedOperation"


def test_sizes_that_nest_come_in_pages(cloud: Ec2) -> None:
    wanted = {"Name": "processor-info.supported-features", "Values": ["nested-virtualization"]}
    pages = list(client(cloud).get_paginator("describe_instance_types").paginate(Filters=[wanted]))
    names = [one["InstanceType"] for page in pages for one in page["InstanceTypes"]]
    assert len(pages) == 2
    assert len(names) == len(set(names)) == 166
    assert "m8i.large" in names
    assert not [name for name in names if "metal" in name or name.startswith("m5.")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "m8i.larg"}, "InvalidParameterValue"),
        ({"InstanceType": "p4de.24xlarge"}, "Unsupported"),
        ({"CpuOptions": {"NestedVirtualization": "yes"}}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpTokens": "always"}}, "InvalidParameterValue"),
        ({"InstanceInitiatedShutdownBehavior": "delete"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-00000000"}]}, "InvalidSubnetID.NotFound"),
        ({"TagSpecifications": [{"ResourceType": "host", "Tags": TAGS}]}, "InvalidParameterValue"),
        *(
            ({"TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]}, expected)
            for tags, expected in (
                ([{"Key": "aws:mine", "Value": "1"}], "InvalidParameterValue"),
                ([{"Key": "k" * 129, "Value": "1"}], "InvalidParameterValue"),
                ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
                ([{"Key": "k", "Value": "a;b"}], "InvalidParameterValue"),
                ([{"Key": f"k{n}", "Value": "1"} for n in range(51)], "TagLimitExceeded"),
            )
        ),
    ],
)
def test_a_bad_launch_is_refused_and_makes_nothing(cloud: Ec2, changes: dict[str, Any], expected: str) -> None:
    before = {one.id for one in cloud.held()}
    with pytest.raises(ClientError) as error:
        launch(cloud, "bad", **changes)
    assert code(error) == expected
    assert {one.id for one in cloud.held()} <= before


def test_nesting_with_spot_may_be_refused(cloud: Ec2) -> None:
    cloud.refuses_nested_spot = True
    launch(cloud, "spot", InstanceMarketOptions={"MarketType": "spot"})
    with pytest.raises(ClientError) as error:
        nested = {"NestedVirtualization": "enabled"}
        launch(cloud, "both", InstanceMarketOptions={"MarketType": "spot"}, CpuOptions=nested)
    assert code(error) == "InvalidParameterCombination"
