"""A plain client of the emulated EC2, for tests that ask it what no provider would."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.clouds.ec2 import Ec2
from tests.clouds.ec2_account import KEYS
from tests.providers.conftest import until

TAGS = [{"Key": "paddock-controller", "Value": "c1"}]
EVERY = [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume", "network-interface")]


@pytest.fixture(scope="module")
def shared() -> Iterator[Ec2]:
    """One emulator for a module's tests."""
    cloud = Ec2()
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(shared: Ec2) -> Iterator[Ec2]:
    """The emulator; whatever a test launched is ended after it."""
    yield shared
    shared.on_boot = shared.on_end = None
    shared.refuses_nested_spot = False
    for zone in ("us-east-1a", "eu-west-1a"):
        api = client(shared, zone)
        ids = [one["InstanceId"] for one in instances(api) if one["State"]["Name"] != "terminated"]
        until(lambda api=api, ids=ids: not ids or _accepted(api, ids), "all instances are ended")


def _accepted(api: Any, ids: list[str]) -> bool:
    try:
        api.terminate_instances(InstanceIds=ids)
    except ClientError:
        return False
    return True


def client(cloud: Ec2, zone: str = "us-east-1a", key: str = KEYS.access_key_id) -> Any:
    return boto3.client(
        "ec2",
        region_name=zone[:-1],
        endpoint_url=cloud.endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=KEYS.secret_access_key,
        config=Config(retries={"mode": "standard", "total_max_attempts": 1}, proxies={}, read_timeout=10),
    )


def launch(cloud: Ec2, token: str, zone: str = "us-east-1a", **changes: Any) -> dict[str, Any]:
    """A good launch, with changes; None takes a part out."""
    region = next(one for one in cloud.ground.regions if zone in one.subnets)
    nic = {"DeviceIndex": 0, "SubnetId": region.subnets[zone], "DeleteOnTermination": True}
    asked: dict[str, Any] = {
        "ImageId": region.image,
        "InstanceType": "m8i.large",
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "NetworkInterfaces": [nic],
        "TagSpecifications": EVERY,
    }
    asked = {key: value for key, value in (asked | changes).items() if value is not None}
    answer: dict[str, Any] = client(cloud, zone).run_instances(**asked)["Instances"][0]
    return answer


def instances(api: Any, *filters: dict[str, Any]) -> list[dict[str, Any]]:
    pages = api.get_paginator("describe_instances").paginate(Filters=list(filters))
    return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]


def state(cloud: Ec2, id: str) -> str:
    found = instances(client(cloud), {"Name": "instance-id", "Values": [id]})
    return str(found[0]["State"]["Name"]) if found else ""


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])
