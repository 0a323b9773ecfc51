"""What each provider calls a machine that it made is what that machine's own token says: so a grant finds it."""

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from paddock.bootstrap.instances import aws_instance, azure_instance, gcp_instance
from providers.contract import HostOrder, Item
from tests.bootstrap.rig import AUDIENCE
from tests.clouds.cloud import Cloud
from tests.clouds.metadata import AWS_CLAIMS, AwsMachine, AzureMachine, GcpMachine, Issuer, Sts

ISSUER = Issuer("https://issuer.example.com/")


def aws(cloud: Any, order: HostOrder, item: Item) -> tuple[str, str]:
    account = cloud.account.number
    machine = AwsMachine(item.id, region=order.zone[:-1], account=account)
    claims = Sts(ISSUER).claims(machine, AUDIENCE)
    return aws_instance(item.id, order.zone, account), claims[AWS_CLAIMS]["ec2_source_instance_arn"]


def azure(cloud: Any, order: HostOrder, item: Item) -> tuple[str, str]:
    ground = cloud.provider.ground
    machine = AzureMachine(ISSUER, order.name, (), subscription=ground.subscription, group=ground.resource_group)
    return azure_instance(item.id), machine.claims(AUDIENCE)["xms_az_rid"]


def gcp(cloud: Any, order: HostOrder, item: Item) -> tuple[str, str]:
    del cloud
    claims = GcpMachine(ISSUER, order.name, zone=order.zone).claims(AUDIENCE)
    return gcp_instance(item.id), claims["google"]["compute_engine"]["instance_name"]


@pytest.mark.parametrize(
    ("module", "name", "names"),
    [
        ("tests.clouds.ec2", "Ec2", aws),
        ("tests.clouds.arm", "Arm", azure),
        ("tests.clouds.gce", "Gce", gcp),
    ],
    ids=["aws", "azure", "gcp"],
)
def test_a_providers_machine_is_the_one_in_its_token(
    module: str, name: str, names: Callable[[Any, HostOrder, Item], tuple[str, str]]
) -> None:
    cloud: Cloud = getattr(importlib.import_module(module), name)()
    try:
        order = HostOrder(
            controller=f"c-{uuid4().hex[:12]}",
            environment="tests",
            host=f"h-{uuid4().hex[:12]}",
            attempt=1,
            size=cloud.size,
            zone=cloud.zones[0],
            deadline=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2),
        )
        mine, theirs = names(cloud, order, cloud.provider.create(order))
        assert mine == theirs
    finally:
        cloud.close()
