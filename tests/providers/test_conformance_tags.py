"""What holds for every provider's resources: each is tagged from its first moment, and only ours are ours."""

import pytest

from providers.contract import HostState
from tests.providers.conftest import Bench, only_where_it_can_happen, until


def test_all_that_is_made_is_tagged_from_its_first_moment_and_dies_with_the_machine(bench: Bench) -> None:
    order = bench.order()
    item = bench.provider.create(order)
    made = bench.new()
    assert item.id in {one.id for one in made}
    for one in made:
        missing = order.tags.items() - one.tags.items()
        assert not missing, f"{one.kind} {one.id} lacks {missing}"
    bench.running(order)
    assert {one.id for one in made} == {one.id for one in bench.new()}
    bench.end(item)
    assert bench.gone(order)
    assert bench.new() == ()


def test_an_item_says_what_its_tags_say(bench: Bench) -> None:
    order = bench.order()
    made = bench.provider.create(order)
    bench.running(order)
    found = bench.provider.get(order)
    listed = [one for one in bench.listed() if one.kind == "host"]
    for item in (made, found, *listed):
        assert item is not None
        assert (item.controller, item.host, item.attempt) == (order.controller, order.host, order.attempt)
        assert item.environment == order.environment
        assert item.deadline == order.deadline
        assert (item.zone, item.size, item.kind) == (order.zone, order.size, "host")
        assert item.created is not None
        assert not item.protected
        assert item.why == ""
    assert {item.id for item in bench.listed() if item.kind != "host" and item.attached_to != made.id} == set()


def test_a_list_has_nothing_of_others(bench: Bench) -> None:
    order, other = bench.order(), bench.order(controller=bench.another())
    bench.provider.create(order)
    bench.provider.create(other)
    bench.running(order)
    bench.running(other)
    bench.plant("host", team="billing")
    assert {item.host for item in bench.listed()} == {order.host}
    assert {item.host for item in bench.listed(other.controller)} == {other.host}


def test_two_environments_of_one_controller_may_call_their_hosts_alike(bench: Bench) -> None:
    order = bench.order()
    other = bench.order(host=order.host, environment="tests-2")
    mine, theirs = bench.provider.create(order), bench.provider.create(other)
    assert len(bench.machines(order)) == 2
    assert (bench.running(order).id, bench.running(other).id) == (mine.id, theirs.id)
    machines = (item for item in bench.listed() if item.kind == "host")
    assert {(item.environment, item.id) for item in machines} == {("tests", mine.id), ("tests-2", theirs.id)}
    bench.end(mine)
    assert bench.gone(order)
    left = bench.provider.get(other)
    assert left is not None
    assert (left.id, left.environment, left.state) == (theirs.id, "tests-2", HostState.RUNNING)


def test_a_list_has_the_machines_of_every_zone(bench: Bench) -> None:
    orders = [bench.order(zone=zone) for zone in bench.cloud.zones]
    for order in orders:
        bench.provider.create(order)
    for order in orders:
        bench.running(order)
    found = {(item.zone, item.host) for item in bench.listed() if item.kind == "host"}
    assert found == {(order.zone, order.host) for order in orders}


def test_a_half_tagged_machine_can_be_told_from_ours(bench: Bench) -> None:
    half = bench.plant("host", paddock_controller=bench.controller)
    odd = bench.plant("host", paddock_controller=bench.controller, paddock_attempt="first", paddock_deadline="never")
    found = {item.id: item for item in bench.listed() if item.kind == "host"}
    assert set(found) <= {half, odd}
    assert all(
        (item.environment, item.host, item.attempt, item.deadline) == ("", "", 0, None) for item in found.values()
    )


def test_a_protected_machine_says_so(bench: Bench) -> None:
    order = bench.order()
    id = bench.plant("host", **_spelled(order.tags), paddock_protect="yes")
    assert [item.protected for item in bench.listed() if item.id == id] == [True]


@pytest.mark.parametrize("kind", ["disk", "nic", "address"])
def test_an_orphan_beside_machines_is_listed_and_can_be_ended(bench: Bench, kind: str) -> None:
    only_where_it_can_happen(bench.cloud, kind)
    order = bench.order()
    id = bench.plant(kind, **_spelled(order.tags))
    item = next(item for item in bench.listed() if item.id == id)
    assert (item.kind, item.host, item.attempt, item.attached_to) == (kind, order.host, order.attempt, "")
    assert (item.environment, item.deadline) == (order.environment, order.deadline)
    bench.end(item)
    assert until(lambda: id not in {one.id for one in bench.cloud.held()}, "the orphan is gone")
    assert until(lambda: id not in {one.id for one in bench.listed()}, "the orphan is not listed")
    assert bench.end(item) in {HostState.DELETING, HostState.GONE}


def _spelled(tags: dict[str, str]) -> dict[str, str]:
    return {key.replace("-", "_"): value for key, value in tags.items()}
