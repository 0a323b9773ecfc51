"""What holds for every provider: one order is one machine, a failure has its class, and an end is an end."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from providers.contract import ErrorClass, HostState, Item, ProviderError
from tests.clouds.cloud import Fault, Operation
from tests.providers.conftest import Bench, only_where_it_can_happen, refused, until

KINDS = {
    Fault.THROTTLED: ErrorClass.THROTTLED,
    Fault.TRANSIENT: ErrorClass.TRANSIENT,
    Fault.CAPACITY: ErrorClass.CAPACITY,
    Fault.QUOTA: ErrorClass.QUOTA,
    Fault.AUTH: ErrorClass.AUTH,
}
ANYWHERE = (Fault.THROTTLED, Fault.TRANSIENT, Fault.AUTH)
# One order, one machine


def test_creating_twice_gives_one_machine(bench: Bench) -> None:
    order = bench.order()
    first, second = bench.provider.create(order), bench.provider.create(order)
    assert first.id == second.id
    assert bench.running(order).id == first.id
    assert bench.provider.create(order).id == first.id
    assert bench.machines(order) == [first.id]


def test_a_lost_answer_makes_no_second_machine(bench: Bench) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, Fault.LOST)
    assert refused(lambda: bench.provider.create(order)).again
    assert len(bench.machines(order)) == 1, "the fault was not a lost answer"
    again = bench.provider.create(order)
    assert bench.machines(order) == [again.id]


def test_after_a_lost_answer_a_look_never_says_that_there_is_none(bench: Bench) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, Fault.LOST)
    assert refused(lambda: bench.provider.create(order)).again
    found = until(lambda: bench.looked(order), "it is found")
    assert bench.machines(order) == [found.id]


def test_two_threads_with_one_order_get_one_machine(bench: Bench) -> None:
    order, together = bench.order(), threading.Barrier(2)

    def create() -> Item | ProviderError:
        together.wait(5)
        try:
            return bench.provider.create(order)
        except ProviderError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(create) for _ in range(2)]
    results = [answer.result() for answer in answers]
    items = [one for one in results if isinstance(one, Item)]
    assert items, results
    assert all(one.again for one in results if isinstance(one, ProviderError)), results
    assert {one.id for one in items} == set(bench.machines(order))
    assert len(bench.machines(order)) == 1


def test_the_same_attempt_in_another_zone_is_refused_and_makes_no_second_machine(bench: Bench) -> None:
    order = bench.order()
    first = bench.provider.create(order)
    error = refused(lambda: bench.provider.create(replace(order, zone=bench.cloud.zones[1])))
    assert error.kind is ErrorClass.CONFLICT
    assert bench.machines(order) == [first.id]


def test_a_new_attempt_is_a_new_machine_beside_the_old_one(bench: Bench) -> None:
    order = bench.order()
    second = replace(order, attempt=2)
    ids = {bench.provider.create(order).id, bench.provider.create(second).id}
    assert len(ids) == 2
    assert set(bench.machines(order)) == ids
    assert [bench.running(one).attempt for one in (order, second)] == [1, 2]


def test_a_machine_has_the_name_that_its_order_says(bench: Bench) -> None:
    order = bench.order()
    names = {bench.provider.create(order).name, bench.running(order).name}
    names |= {item.name for item in bench.listed() if item.kind == "host"}
    assert names == {order.name}


def test_what_was_never_ordered_is_not_there(bench: Bench) -> None:
    assert bench.provider.get(bench.order()) is None


def test_a_machine_that_is_seen_late_is_never_said_not_to_be(bench: Bench) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, Fault.LATE)
    item = bench.provider.create(order)
    absences: list[Item | None] = []

    def visible() -> bool:
        try:
            found = bench.provider.get(order)
        except ProviderError as error:
            assert error.again, error
            return False
        if found is None or found.state in {HostState.DELETING, HostState.GONE}:
            absences.append(found)
        return found is not None and found.state is HostState.RUNNING

    until(visible, "it runs")
    assert not absences
    assert bench.machines(order) == [item.id]


# Failures


@pytest.mark.parametrize("fault", KINDS)
def test_each_failure_of_creation_has_its_class(bench: Bench, fault: Fault) -> None:
    only_where_it_can_happen(bench.cloud, fault)
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, fault)
    error = _failed_creation(bench, lambda: bench.provider.create(order), lambda: bench.provider.get(order))
    assert error == KINDS[fault]


def _failed_creation(bench: Bench, create: Callable[[], Item], get: Callable[[], Item | None]) -> str:
    """The class of a failure that comes at once, or, where a cloud accepts first, with a look later."""
    try:
        item = create()
    except ProviderError as error:
        assert str(error)
        return error.kind

    def failure() -> str:
        try:
            found = get()
        except ProviderError as error:
            return error.kind
        assert found is not None
        assert found.state is not HostState.RUNNING
        return found.why.partition(":")[0] if found.state is HostState.DELETING else ""

    found = until(failure, "it failed")
    bench.end(item)
    return found


@pytest.mark.parametrize("fault", ANYWHERE)
def test_each_failure_of_a_look_has_its_class(bench: Bench, fault: Fault) -> None:
    order = bench.order()
    bench.provider.create(order)
    bench.running(order)
    bench.cloud.fault(Operation.GET, fault)
    assert refused(lambda: bench.provider.get(order)).kind is KINDS[fault]
    assert bench.provider.get(order) is not None


@pytest.mark.parametrize("fault", ANYWHERE)
def test_each_failure_of_an_end_has_its_class(bench: Bench, fault: Fault) -> None:
    order = bench.order()
    bench.provider.create(order)
    item = bench.running(order)
    bench.cloud.fault(Operation.TERMINATE, fault)
    assert refused(lambda: bench.provider.terminate(item)).kind is KINDS[fault]
    bench.end(item)
    assert bench.gone(order)


@pytest.mark.parametrize("fault", ANYWHERE)
def test_a_list_that_fails_says_that_it_is_not_all(bench: Bench, fault: Fault) -> None:
    order = bench.order()
    bench.provider.create(order)
    bench.running(order)
    bench.cloud.fault(Operation.LIST, fault)
    inventory = bench.provider.list_owned(bench.controller)
    assert not inventory.complete
    assert inventory.missing_scopes
    assert all(re.search(r"[a-z]{3,}", words) for words in inventory.missing_scopes)
    assert [item.host for item in bench.listed() if item.kind == "host"] == [order.host]


def test_the_time_to_wait_is_handed_on(bench: Bench) -> None:
    only_where_it_can_happen(bench.cloud, "retry-after")
    bench.cloud.fault(Operation.CREATE, Fault.THROTTLED, times=2)
    errors = [refused(lambda: bench.provider.create(bench.order())) for _ in range(2)]
    waits = [error.retry_after_s for error in errors if error.retry_after_s is not None]
    assert waits, "no throttling came with a time"
    assert all(0 < wait <= 3600 for wait in waits)


# The end


def test_an_end_is_over_when_a_look_says_so_and_asking_again_does_no_harm(bench: Bench) -> None:
    order = bench.order()
    bench.provider.create(order)
    item = bench.running(order)
    ends = {bench.end(item), bench.end(item)}
    assert bench.gone(order)
    assert bench.machines(order) == []
    ends.add(bench.end(item))
    assert ends <= {HostState.DELETING, HostState.GONE}


def test_a_lost_answer_of_an_end_does_no_harm(bench: Bench) -> None:
    order = bench.order()
    bench.provider.create(order)
    item = bench.running(order)
    bench.cloud.fault(Operation.TERMINATE, Fault.LOST)
    assert refused(lambda: bench.provider.terminate(item)).again
    bench.end(item)
    assert bench.gone(order)
    assert bench.new() == ()


@pytest.mark.parametrize("late", [False, True], ids=["seen", "late"])
def test_a_machine_that_was_made_a_moment_ago_is_not_said_to_be_gone_before_it_is(bench: Bench, late: bool) -> None:
    order = bench.order()
    if late:
        bench.cloud.fault(Operation.CREATE, Fault.LATE)
    item = bench.provider.create(order)

    def ended() -> bool:
        try:
            state = bench.provider.terminate(item)
        except ProviderError as error:
            assert error.again, error
            return False
        if state is HostState.GONE:
            assert bench.machines(order) == []
        return True

    until(ended, "the end is accepted")
    assert bench.gone(order)
    assert until(lambda: bench.machines(order) == [], "the cloud has it no more")
    assert bench.new() == ()
