"""A provider's list as a sweep reads it, and the end of one thing of it: looked at first, and proved behind."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import environment, owned
from activities.environment import EnvironmentActivities
from paddock.contracts.ground import Ended, EndItem, GroundInventory, GroundItem
from paddock.contracts.report import Gone
from providers.contract import ErrorClass, HostState, ProviderError
from tests.workflows.sky import AS_OF, CONTROLLER, Sky, made, side

SECRET = "AKIA-hunter2"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(environment, "SLOWEST_LOOK_S", 0.02)


@pytest.fixture
def sky() -> Sky:
    return Sky()


async def listed(sky: Sky) -> GroundInventory:
    ground = EnvironmentActivities("e", sky, CONTROLLER)
    found: GroundInventory = await ActivityEnvironment().run(ground.list_ground, "e")
    return found


async def judged(sky: Sky, id: str) -> GroundItem:
    [one] = [one for one in (await listed(sky)).items if one.id == id]
    return one


async def end(sky: Sky, item: GroundItem, within_s: float = 10) -> Ended:
    ground = EnvironmentActivities("e", sky, CONTROLLER)
    ended: Ended = await asyncio.wait_for(
        ActivityEnvironment().run(ground.end_item, EndItem(environment="e", item=item)), within_s
    )
    return ended


async def end_of(sky: Sky, id: str) -> Ended:
    return await end(sky, await judged(sky, id))


# The list


async def test_a_machine_is_listed_with_its_parts_its_age_and_its_price(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(side(machine), side(machine, "nic"), machine)
    found = await listed(sky)
    [one] = found.items
    assert (one.id, one.kind, one.host, one.attempt, one.controller) == (machine.id, "host", "h-1", 1, CONTROLLER)
    assert sorted(part.kind for part in one.parts) == ["disk", "nic"]
    assert one.age_s == pytest.approx(3600, abs=60)
    assert one.cost
    assert (one.cost.per_hour, one.cost.currency, one.cost.as_of) == (0.4, "USD", AS_OF)
    assert (found.complete, found.provider, found.controller) == (True, "played", CONTROLLER)
    assert sky.calls == {CONTROLLER: 1}, "the worker knows whose ground it is, and asks for nobody else's"


async def test_what_is_attached_to_a_machine_with_other_tags_is_a_thing_of_its_own(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(
        machine, side(machine, host="h-2"), side(machine, "nic", controller=""), side(machine, "address", attempt=2)
    )
    found = await listed(sky)
    assert [(one.kind, one.attached_to) for one in found.items if one.kind != "host"] == [
        ("address", machine.id),
        ("disk", machine.id),
        ("nic", machine.id),
    ]
    assert found.items[0].parts == ()


async def test_ages_are_known_by_creation_else_at_least_by_a_deadline_that_passed(sky: Sky) -> None:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    sky.put(
        made("future", created=now + hour),
        made("unknown", created=None, deadline=now + hour),
        made("nothing", created=None, deadline=None),
        made("passed", created=None, deadline=now - 2 * hour),
        made("young", created=now, deadline=now - hour),
    )
    ages = {one.host: one.age_s for one in (await listed(sky)).items}
    assert (ages["future"], ages["unknown"], ages["nothing"]) == (0.0, None, None)
    assert ages["passed"] == pytest.approx(7200, abs=60)
    assert ages["young"] == pytest.approx(0, abs=60)


async def test_a_price_is_that_of_the_place_and_none_where_none_is_known(sky: Sky) -> None:
    sky.put(made("a"), made("b", zone="zone-b"), made("c", zone="zone-c"), made("d", size="odd"), made("e", size=""))
    costs = {one.host: one.cost.per_hour if one.cost else None for one in (await listed(sky)).items}
    assert costs == {"a": 0.4, "b": 0.5, "c": None, "d": None, "e": None}


async def test_without_prices_the_list_is_there_all_the_same(sky: Sky) -> None:
    sky.put(made("h-1"))
    sky.no_prices = ProviderError(ErrorClass.AUTH, "not allowed")
    [one] = (await listed(sky)).items
    assert one.cost is None


async def test_nothing_of_the_cloud_but_ids_names_and_tags_gets_into_an_answer(sky: Sky) -> None:
    sky.put(made("h-1", state=HostState.DELETING, why=f"user data was {SECRET}"))
    sky.complete, sky.missing = False, (
        f"machines of region-a: auth: denied for {SECRET}",
        f"disks of a group: {SECRET} is not allowed",
        "h-3/rack-2",
        f"instances: zones/zone-a: NO_ANSWER {SECRET}",
    )  # fmt: skip
    found = await listed(sky)
    assert SECRET not in found.model_dump_json()
    assert found.items[0].failed
    assert found.missing == ("machines of region-a: auth", "disks of a group", "h-3/rack-2", "instances: zones/zone-a")


async def test_what_is_gone_is_not_listed(sky: Sky) -> None:
    sky.put(made("h-1", state=HostState.GONE))
    assert (await listed(sky)).items == ()


async def test_what_is_too_much_for_one_answer_is_cut_and_the_list_is_not_complete(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "MOST_BYTES", 3_000)
    sky.put(*(side(made(f"h-{n}"), attached_to="") for n in range(20)), made("h-99"))
    found = await listed(sky)
    assert not found.complete
    assert found.items[0].kind == "host", "machines come first: they cost most"
    assert len(found.model_dump_json()) < 4_000
    assert found.missing == (f"{21 - len(found.items)} of 21 things, too many for one answer",)


async def test_two_thousand_machines_with_their_disks_fit(sky: Sky) -> None:
    for n in range(2000):
        machine = made(f"h-{n:06}", id=f"i-{n:017x}")
        sky.put(machine, side(machine, id=f"vol-{n:017x}"))
    found = await listed(sky)
    assert (found.complete, len(found.items)) == (True, 2000)
    assert len(json.dumps(found.model_dump(mode="json"))) < 2 << 20


async def test_a_provider_that_refuses_to_list_fails_with_its_class(sky: Sky) -> None:
    def refuse(_: int) -> None:
        raise ProviderError(ErrorClass.INVALID, f"the key {SECRET} is not known", code="controller")

    sky.before_look = refuse
    with pytest.raises(ApplicationError) as failed:
        await listed(sky)
    assert (failed.value.type, failed.value.non_retryable) == ("invalid", True)
    assert failed.value.message == "list what is owned: invalid (controller)"


# The end


async def test_a_machine_is_ended_with_its_parts_and_all_of_it_is_proved(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine, side(machine), side(machine, "nic"), made("h-2"))
    ended = await end_of(sky, machine.id)
    assert [(one.resource, one.id, one.gone) for one in ended.receipts] == [
        ("host", machine.name, Gone.PROVED),
        ("disk", f"disk-{machine.id}", Gone.PROVED),
        ("nic", f"nic-{machine.id}", Gone.PROVED),
    ]
    assert [one.host for one in sky.held] == ["h-2"]
    assert sky.ended == [machine.id], "what goes with a machine is not asked to end by itself"
    assert sky.looks == 1 + 1 + 2, "the list, the last look before, and two that prove it"


async def test_a_part_that_outlives_its_machine_is_ended_too(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine, side(machine))
    sky.stay.add(f"disk-{machine.id}")
    ended = await end_of(sky, machine.id)
    assert (len(ended.receipts), sky.held) == (2, [])
    assert sky.ended == [machine.id, f"disk-{machine.id}"]


async def test_one_look_proves_nothing(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine)
    item = await judged(sky, machine.id)

    def back(look: int) -> None:
        if look == 4:  # a list that lacked it for a moment
            sky.put(machine)

    sky.before_look = back
    await end(sky, item)
    assert sky.ended == [machine.id, machine.id]
    assert sky.held == []


async def test_an_incomplete_list_proves_nothing(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine)
    item = await judged(sky, machine.id)
    sky.complete = False

    def whole(look: int) -> None:
        sky.complete = look > 10

    sky.before_look = whole
    ended = await end(sky, item)
    assert ended.receipts
    assert sky.looks == 12


async def test_a_machine_that_lists_lack_and_its_name_finds_is_not_gone(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine)
    item = await judged(sky, machine.id)
    sky.unseen.add(machine.id)
    await end(sky, item)
    assert sky.ended == [machine.id]
    assert sky.held == []


async def test_one_that_nobody_made_by_an_order_is_known_by_lists_only(sky: Sky) -> None:
    machine = made("h-1", name="by-hand")
    sky.put(machine)
    ended = await end_of(sky, machine.id)
    assert (ended.receipts[0].id, sky.lookups) == ("by-hand", 0)


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        ("machine", {"protected": True}, "is protected now"),
        ("disk", {"protected": True}, "is protected now"),
        ("machine", {"host": "h-2"}, "the tags of"),
        ("machine", {"attempt": 2}, "the tags of"),
        ("machine", {"controller": "theirs"}, "the tags of"),
        ("disk", {"controller": ""}, "the tags of"),
        ("alone", {"attached_to": "i-9"}, "it is held by i-9 now"),
        ("other", {"protected": True}, "which goes with it, is protected now"),
    ],
)
async def test_what_changed_since_it_was_judged_is_spared(
    sky: Sky, which: str, change: dict[str, Any], words: str
) -> None:
    machine = made("h-1")
    alone = side(machine, "nic", attached_to="")
    sky.put(machine, side(machine), alone)
    item = await judged(sky, alone.id if which == "alone" else machine.id)
    sky.put(side(machine, "address", host="another"))
    ids = {"machine": machine.id, "disk": f"disk-{machine.id}", "alone": alone.id, "other": f"address-{machine.id}"}
    sky.change(ids[which], **change)
    ended = await end(sky, item)
    assert words in ended.spared
    assert (ended.receipts, sky.ended) == ((), [])


async def test_a_first_look_that_does_not_show_it_is_not_its_last_look(sky: Sky) -> None:
    machine = made("h-1", name="by-hand")
    sky.put(machine)
    item = await judged(sky, machine.id)
    sky.unseen, sky.complete = {machine.id}, False

    def shown(look: int) -> None:
        if look == 3:
            sky.unseen, sky.complete = set(), True
            sky.change(machine.id, protected=True)

    sky.before_look = shown
    assert "protected now" in (await end(sky, item)).spared
    assert sky.ended == []


async def test_the_same_id_in_another_zone_is_another_thing(sky: Sky) -> None:
    disk, other = side(made("h-1"), attached_to=""), side(made("h-1"), attached_to="", zone="zone-b")
    sky.put(other)
    item = GroundItem(id=disk.id, kind="disk", state=disk.state, zone="zone-a", host="h-1", attempt=1)
    assert (await end(sky, item)).receipts
    assert (sky.held, sky.ended) == ([other], [])


async def test_a_refusal_that_may_pass_is_asked_again_and_another_is_a_failure_that_is_tried_again(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine)
    sky.refuse[machine.id] = [ProviderError(ErrorClass.THROTTLED, "slower")]
    assert (await end_of(sky, machine.id)).receipts
    sky.put(machine)
    sky.refuse[machine.id] = [ProviderError(ErrorClass.AUTH, f"not allowed to {SECRET}", code="Not.Allowed")]
    with pytest.raises(ApplicationError) as failed:
        await end_of(sky, machine.id)
    assert (failed.value.type, failed.value.non_retryable) == ("auth", False)
    assert failed.value.message == f"end the host {machine.id}: auth (Not.Allowed)"
    assert (await end_of(sky, machine.id)).receipts, "the next try"


async def test_one_that_does_not_end_answers_nothing(sky: Sky) -> None:
    machine = made("h-1")
    sky.put(machine)
    sky.slow.add(machine.id)
    with pytest.raises(TimeoutError):
        await end(sky, await judged(sky, machine.id), within_s=0.5)
