"""The EC2 provider while EC2 does not show what it made, or does not answer at all."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from providers.aws import Aws
from providers.contract import ErrorClass, HostState, Item
from tests.clouds.cloud import Fault, Operation
from tests.clouds.ec2 import Ec2
from tests.providers.conftest import Bench, refused


@pytest.fixture
def cloud() -> Iterator[Ec2]:
    """An EC2 that shows a late machine only when the test is long over."""
    cloud = Ec2(late_s=3600)
    yield cloud
    cloud.close()


def test_another_process_makes_no_second_machine_before_the_first_is_seen(cloud: Ec2) -> None:
    bench = Bench(cloud)
    order = bench.order()
    cloud.fault(Operation.CREATE, Fault.LATE)
    item = bench.provider.create(order)
    assert Aws(cloud.ground).create(order).id == item.id
    assert bench.machines(order) == [item.id]


def test_the_same_attempt_with_other_user_data_is_a_conflict_before_the_first_is_seen(cloud: Ec2) -> None:
    bench = Bench(cloud)
    order = bench.order()
    cloud.fault(Operation.CREATE, Fault.LATE)
    bench.provider.create(order)
    other = replace(order, user_data="#cloud-config\nother: true\n")
    error = refused(lambda: Aws(cloud.ground).create(other))
    assert (error.kind, error.code) == (ErrorClass.CONFLICT, "IdempotentParameterMismatch")
    assert "new attempt" in str(error)


def test_what_this_process_made_is_answered_before_it_is_seen_and_cannot_be_ended_yet(cloud: Ec2) -> None:
    bench = Bench(cloud)
    order = bench.order()
    cloud.fault(Operation.CREATE, Fault.LATE)
    item = bench.provider.create(order)
    assert bench.provider.get(order) == item
    assert item.created is not None
    for created in (item.created, None, item.created - timedelta(days=1)):
        one = replace(item, created=created)
        error = refused(partial(bench.provider.terminate, one))
        assert (error.kind, error.code) == (ErrorClass.TRANSIENT, "InvalidInstanceID.NotFound")
    assert refused(lambda: Aws(cloud.ground).terminate(item)).kind is ErrorClass.TRANSIENT


def test_a_machine_that_ec2_never_knew_is_an_error_while_it_is_young_and_never_gone(cloud: Ec2) -> None:
    now = datetime.now(UTC)
    item = Item("i-0123456789abcdef0", "host", "x", HostState.PENDING, "us-east-1a", created=now)
    error = refused(lambda: cloud.provider.terminate(item))
    assert (error.kind, error.code, error.retry_after_s) == (ErrorClass.TRANSIENT, "InvalidInstanceID.NotFound", 2.0)
    assert cloud.provider.terminate(replace(item, created=now - timedelta(days=1))) is HostState.DELETING


def test_a_refusal_does_not_undo_the_doubt_that_an_earlier_request_left(cloud: Ec2) -> None:
    bench = Bench(cloud)
    order = bench.order()
    for fault in (Fault.TRANSIENT, Fault.THROTTLED):
        cloud.fault(Operation.CREATE, fault)
        refused(lambda: bench.provider.create(order))
        assert refused(lambda: bench.provider.get(order)).code == "unsettled"


def test_what_cannot_be_reached_is_told(cloud: Ec2) -> None:
    order = Bench(cloud).order()
    cloud.close()
    error = refused(lambda: cloud.provider.get(order))
    assert error.kind is ErrorClass.TRANSIENT
    assert "network" in str(error)
    assert not cloud.provider.list_owned("c").complete
