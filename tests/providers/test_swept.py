"""A sweep's two activities at every provider: the list tells what the cloud holds, and it proves each end itself."""

from collections.abc import Callable
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import environment
from activities.environment import EnvironmentActivities
from paddock.contracts.ground import Ended, EndItem, GroundInventory, GroundItem
from paddock.contracts.report import Gone
from tests.providers.conftest import Bench, only_where_it_can_happen


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(environment, "SLOWEST_LOOK_S", 0.2)


async def listed(bench: Bench) -> GroundInventory:
    ground = EnvironmentActivities("tests", bench.provider, bench.controller)
    found: GroundInventory = await _run(ground.list_ground, "tests")
    assert found.complete, found.missing
    return found


async def end(bench: Bench, item: GroundItem) -> Ended:
    ground = EnvironmentActivities("tests", bench.provider, bench.controller)
    ended: Ended = await _run(ground.end_item, EndItem(environment="tests", item=item))
    return ended


async def _run(what: Callable[..., Any], argument: object) -> Any:
    return await ActivityEnvironment().run(what, argument)


async def test_a_machine_is_listed_with_its_parts_and_price_and_its_end_is_proved(bench: Bench) -> None:
    order, other = bench.order(), bench.order(controller=bench.another())
    for one in (order, other):
        bench.provider.create(one)
        bench.running(one)
    [machine] = (await listed(bench)).items
    assert (machine.kind, machine.host, machine.attempt, machine.name) == ("host", order.host, 1, order.name)
    assert (machine.controller, machine.failed, machine.protected) == (bench.controller, False, False)
    assert machine.age_s is not None
    assert machine.age_s < 600
    if bench.cloud.name != "onprem":
        assert machine.cost
        assert machine.cost.per_hour > 0
        assert machine.cost.as_of
        assert "disk" in {part.kind for part in machine.parts}
    ended = await end(bench, machine)
    assert ended.spared == ""
    assert {one.gone for one in ended.receipts} == {Gone.PROVED}
    assert len(ended.receipts) == 1 + len(machine.parts)
    assert bench.machines(order) == []
    assert not [one for one in bench.new() if one.tags.get("paddock-host") == order.host]
    assert (await listed(bench)).items == ()
    assert bench.machines(other), "another controller's machine is nobody's business"


async def test_a_disk_that_nothing_holds_is_a_thing_of_its_own(bench: Bench) -> None:
    only_where_it_can_happen(bench.cloud, "disk")
    own = {"paddock_controller": bench.controller, "paddock_host": "h-lost", "paddock_attempt": "1"}
    disk, half = bench.plant("disk", **own), bench.plant("disk", paddock_controller=bench.controller)
    found = {one.id: one for one in (await listed(bench)).items}
    assert {*found} == {disk, half}
    assert (found[disk].kind, found[disk].host, found[disk].attached_to) == ("disk", "h-lost", "")
    assert (found[half].host, found[half].attempt) == ("", 0)
    assert (await end(bench, found[disk])).receipts
    assert [one.id for one in (await listed(bench)).items] == [half]


async def test_one_whose_tags_are_others_than_it_was_judged_by_is_spared(bench: Bench) -> None:
    order = bench.order()
    bench.provider.create(order)
    bench.running(order)
    [machine] = (await listed(bench)).items
    ended = await end(bench, machine.model_copy(update={"host": "h-another"}))
    assert "are not what they were" in ended.spared
    assert len(bench.machines(order)) == 1
