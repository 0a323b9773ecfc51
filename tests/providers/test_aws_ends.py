"""What the EC2 provider lists and ends in the emulated cloud, and what it can sell."""

from dataclasses import replace
from functools import partial

import pytest

from providers.aws import Aws, AwsGround, AwsRegion
from providers.contract import ErrorClass, HostState, Item
from tests.clouds.cloud import Fault, Operation
from tests.clouds.ec2_client import client, instances
from tests.providers.conftest import Bench, refused

pytestmark = pytest.mark.parametrize("cloud", ["aws"], indirect=True)
FAR = "eu-west-1a"


def other_process(bench: Bench, **changes: object) -> Aws:
    """The provider of a worker that remembers nothing."""
    assert isinstance(bench.provider, Aws)
    return Aws(replace(bench.provider.ground, **changes))  # type: ignore[arg-type]


def test_one_region_that_cannot_be_read_hides_no_other(bench: Bench) -> None:
    near, far = bench.order(), bench.order(zone=FAR)
    bench.provider.create(near)
    bench.provider.create(far)
    bench.cloud.fault(Operation.LIST, Fault.THROTTLED)
    inventory = bench.provider.list_owned(bench.controller)
    assert not inventory.complete
    assert [words.partition(":")[0] for words in inventory.missing_scopes] == ["machines of us-east-1"]
    assert "RequestLimitExceeded" in inventory.missing_scopes[0]
    assert {(one.kind, one.host) for one in inventory.items} == {
        ("host", far.host),
        *((kind, one.host) for kind in ("disk", "nic") for one in (near, far)),
    }


def test_a_list_goes_through_all_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.aws.provider._PAGE", {"PageSize": 5})
    tags = {key.replace("-", "_"): value for key, value in bench.order().tags.items()}
    planted = {bench.plant("host", **tags) for _ in range(7)}
    assert {one.id for one in bench.listed() if one.kind == "host"} == planted


def test_a_side_resource_that_a_machine_holds_is_ended_after_it(bench: Bench) -> None:
    order = bench.order()
    machine = bench.provider.create(order)
    bench.running(order)
    sides = [one for one in bench.listed() if one.kind in {"disk", "nic"}]
    assert {one.attached_to for one in sides} == {machine.id}
    for one in sides:
        error = refused(partial(bench.provider.terminate, one))
        assert error.kind is ErrorClass.TRANSIENT
        assert machine.id in str(error)
    bench.end(machine)
    assert bench.gone(order)
    assert {bench.provider.terminate(one) for one in sides} == {HostState.GONE}


@pytest.mark.parametrize(
    ("item", "word"),
    [
        (Item("b-1", "bucket", "x", HostState.RUNNING, "us-east-1a"), "bucket"),
        (Item("i-1", "host", "x", HostState.RUNNING, "ap-south-1a"), "ap-south-1a"),
    ],
)
def test_what_cannot_be_ended_is_told(bench: Bench, item: Item, word: str) -> None:
    before = dict(bench.cloud.calls())
    error = refused(lambda: bench.provider.terminate(item))
    assert error.kind is ErrorClass.INVALID
    assert word in str(error)
    assert bench.cloud.calls() == before


def test_a_region_without_subnets_is_swept_and_makes_nothing(bench: Bench) -> None:
    order = bench.order(zone=FAR)
    bench.provider.create(order)
    bench.running(order)
    assert isinstance(bench.provider, Aws)
    near = bench.provider.ground.regions[0]
    later = other_process(bench, regions=(near, AwsRegion("eu-west-1")))
    assert refused(lambda: later.create(bench.order(zone=FAR))).kind is ErrorClass.INVALID
    listed = [one for one in later.list_owned(order.controller).items if one.kind == "host"]
    assert [one.host for one in listed] == [order.host]
    assert later.get(order) == listed[0]
    later.terminate(listed[0])
    assert bench.gone(order)
    assert not instances(client(bench.cloud, FAR), {"Name": "instance-state-name", "Values": ["running"]})  # type: ignore[arg-type]


def test_the_catalogue_has_each_region_with_its_zones_and_only_known_prices(bench: Bench) -> None:
    sizes = {(one.name, one.zones[0][:-1]): one for one in bench.provider.catalogue()}
    near, far, metal = (
        sizes["m8i.large", "us-east-1"],
        sizes["m8i.large", "eu-west-1"],
        sizes["m5.metal", "us-east-1"],
    )
    assert (near.zones, near.kvm, near.vcpu, near.memory_mib) == (("us-east-1a", "us-east-1b"), "nested", 2, 8192)
    assert (near.price_per_hour, near.currency) == (0.10584, "USD")
    assert (far.zones, far.price_per_hour, far.as_of) == ((FAR,), None, None)
    assert (metal.kvm, metal.price_per_hour) == ("metal", 4.608)
    assert not [one for one in sizes.values() if one.kvm == "nested" and "metal" in one.name]
    assert not [one for one in sizes.values() if one.name.startswith(("c7g", "a1", "mac"))], "guests are x86"


def test_settings_show_no_credential(bench: Bench) -> None:
    assert isinstance(bench.provider, Aws)
    ground: AwsGround = bench.provider.ground
    assert ground.keys is not None
    shown = f"{ground!r} {ground.keys!r} {bench.provider!r}"
    assert not [secret for secret in ground.keys.secrets if secret in shown]
