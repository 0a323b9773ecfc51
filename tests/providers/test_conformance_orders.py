"""What holds for every provider's orders: a bad one is refused before anything is made, a good one boots as it says."""

import pytest

from providers.contract import MAX_USER_DATA, ErrorClass, ProviderError
from tests.clouds.cloud import Machine
from tests.providers.conftest import Bench, only_where_it_can_happen, refused, until

# The request that makes a machine, as `calls` names it.
CREATES = {
    "aws": "RunInstances",
    "gcp": "compute.instances.insert",
    "azure": "virtualMachines.PUT",
    "onprem": "POST System.Reset",
}


@pytest.mark.parametrize("bad", [{"controller": "Prod:One"}, {"pool": "a b"}, {"environment": ""}, {"host": "x" * 64}])
def test_tags_that_some_cloud_would_refuse_never_leave_the_process(bench: Bench, bad: dict[str, str]) -> None:
    before = dict(bench.cloud.calls())
    error = refused(lambda: bench.provider.create(bench.order(**bad)))
    assert error.kind is ErrorClass.INVALID
    assert bench.cloud.calls() == before


def test_user_data_that_is_too_long_never_leaves_the_process(bench: Bench) -> None:
    before = dict(bench.cloud.calls())
    error = refused(lambda: bench.provider.create(bench.order(user_data="ä" * (MAX_USER_DATA // 2 + 1))))
    assert error.kind is ErrorClass.INVALID
    assert bench.cloud.calls() == before


def test_the_longest_user_data_reaches_the_machine(bench: Bench) -> None:
    order = bench.order(user_data="#cloud-config\n# " + "ä" * ((MAX_USER_DATA - 16) // 2))
    booted: list[Machine] = []
    bench.cloud.on_boot = booted.append
    item = bench.provider.create(order)
    machine = until(lambda: next((one for one in booted if one.id == item.id), None), "it boots")
    assert machine.user_data == order.user_data


def test_a_size_without_kvm_is_refused_before_a_machine_is_made(bench: Bench) -> None:
    error = _unmade(bench, size=bench.cloud.size_without_kvm)
    assert bench.cloud.size_without_kvm in str(error)


def test_an_unknown_size_is_refused_by_its_name(bench: Bench) -> None:
    assert "no-such.size" in str(_unmade(bench, size="no-such.size"))


def test_an_unknown_zone_is_refused_by_its_name(bench: Bench) -> None:
    assert "no-such-zone-1z" in str(_unmade(bench, zone="no-such-zone-1z"))


def _unmade(bench: Bench, **changes: str) -> ProviderError:
    """The refusal of an order that was never sent as one for a machine."""
    made = CREATES[bench.cloud.name]
    before = bench.cloud.calls().get(made, 0)
    error = refused(lambda: bench.provider.create(bench.order(**changes)))
    assert error.kind is ErrorClass.INVALID
    assert bench.cloud.calls().get(made, 0) == before
    assert bench.new() == ()
    return error


# The rest of the contract


def test_a_machine_boots_with_its_user_data_and_tags_and_its_end_is_told(bench: Bench) -> None:
    order = bench.order()
    booted: list[Machine] = []
    ended: list[str] = []
    bench.cloud.on_boot, bench.cloud.on_end = booted.append, ended.append
    item = bench.provider.create(order)
    machine = until(lambda: next((one for one in booted if one.id == item.id), None), "it boots")
    assert (machine.name, machine.zone, machine.user_data) == (order.name, order.zone, order.user_data)
    assert order.tags.items() <= machine.tags.items()
    bench.end(item)
    assert bench.gone(order)
    until(lambda: item.id in ended, "its end is told")
    assert [one.id for one in booted].count(item.id) == ended.count(item.id) == 1


def test_the_catalogue_says_how_kvm_comes_and_what_it_costs_when(bench: Bench) -> None:
    sizes = bench.provider.catalogue()
    assert sizes
    for size in sizes:
        assert size.kvm in {"nested", "metal", "proof", "none"}
        assert size.vcpu > 0
        assert size.memory_mib > 0
        assert (size.price_per_hour is None) == (size.as_of is None) == (size.currency == "")
    ours = [size for size in sizes if size.name == bench.cloud.size and bench.cloud.zones[0] in size.zones]
    assert [size.kvm for size in ours if size.kvm != "none"]
    assert {size.kvm for size in sizes if size.name == bench.cloud.size_without_kvm} <= {"none"}


def test_the_size_that_tests_order_has_a_dated_price(bench: Bench) -> None:
    only_where_it_can_happen(bench.cloud, "price")
    prices = [size for size in bench.provider.catalogue() if size.name == bench.cloud.size and size.price_per_hour]
    assert prices
    assert all(size.as_of is not None and size.currency == "USD" for size in prices)
