"""Placing on a host: what it cannot give is refused by an answer that says why and what to do."""

import asyncio
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.place import PlaceActivities
from paddock.contracts.errors import ErrorKind
from paddock.contracts.hosts import AllowCaller, Reservation, SandboxRef
from paddock.contracts.report import Gone
from paddock.contracts.spec import Shape
from paddock.host.config import Caps, HostConfig
from paddock.host.gate import Gate
from paddock.host.slots import Slots

IMAGES = frozenset({"base", "tools", "sha256:" + "0" * 64})


FIRST, SECOND = "sb-" + "1" * 20, "sb-" + "2" * 20


def ref(name: str = FIRST) -> SandboxRef:
    return SandboxRef(sandbox_id=name, workflow_id=f"w-{name}", run_id="r", environment="e")


@pytest.fixture
async def place(tmp_path: Path) -> PlaceActivities:
    config = HostConfig(
        environment="e",
        host="h",
        state=str(tmp_path),
        cache="",
        temporal="",
        relay="ws://relay",
        policy_public_key="",
        caps=Caps(vcpu=2, memory_mib=1024, disk_mib=2048),
    )
    slots = Slots(tmp_path / "slots.json", 1)
    return PlaceActivities(config, Gate(slots), IMAGES)


async def test_a_free_slot_is_promised_with_where_the_streams_are(place: PlaceActivities) -> None:
    placed = await place.reserve_slot(Reservation(ref=ref(), shape=Shape(), caller_keys=("key",)))
    assert (placed.host, placed.relay, placed.full, placed.error) == ("h", "ws://relay", False, None)
    assert place.gate.slots.caller_keys(FIRST) == ("key",)
    again = await place.reserve_slot(Reservation(ref=ref(), shape=Shape()))
    assert not again.full, "the same sandbox asking again has its slot"


async def test_a_full_host_says_so_and_takes_nothing(place: PlaceActivities) -> None:
    await place.reserve_slot(Reservation(ref=ref(), shape=Shape()))
    placed = await place.reserve_slot(Reservation(ref=ref(SECOND), shape=Shape()))
    assert placed.full
    assert placed.error is None
    assert place.gate.slots.get(SECOND) is None


@pytest.mark.parametrize("image", ["base", "sha256:" + "0" * 64])
async def test_an_image_is_known_by_name_and_by_digest(image: str, place: PlaceActivities) -> None:
    placed = await place.reserve_slot(Reservation(ref=ref(), shape=Shape(), image=image))
    assert placed.error is None


async def test_an_unknown_image_is_refused_with_those_that_are_known(place: PlaceActivities) -> None:
    placed = await place.reserve_slot(Reservation(ref=ref(), shape=Shape(), image="bsae"))
    assert placed.error
    assert (placed.error.kind, placed.error.field) == (ErrorKind.UNKNOWN_IMAGE, "image")
    assert "'bsae'" in placed.error.message
    assert "known: base, tools" in placed.error.message
    assert placed.error.remedy
    assert place.gate.slots.free() == 1


@pytest.mark.parametrize("shape", [{"vcpu": 3}, {"memory_mib": 1025}, {"disk_mib": 2049}])
async def test_more_than_the_caps_is_refused_by_the_field_that_is_too_large(
    shape: dict[str, int], place: PlaceActivities
) -> None:
    [(name, wanted)] = shape.items()
    placed = await place.reserve_slot(Reservation(ref=ref(), shape=Shape.model_validate(shape)))
    assert placed.error
    assert (placed.error.kind, placed.error.field) == (ErrorKind.BAD_SPEC, f"shape.{name}")
    assert str(wanted) in placed.error.message
    assert placed.error.remedy
    assert place.gate.slots.free() == 1


async def test_exactly_the_caps_are_given(place: PlaceActivities) -> None:
    shape = Shape(vcpu=2, memory_mib=1024, disk_mib=2048)
    assert (await place.reserve_slot(Reservation(ref=ref(), shape=shape))).error is None


async def test_a_release_is_proved_by_looking_also_when_repeated(place: PlaceActivities) -> None:
    await place.reserve_slot(Reservation(ref=ref(), shape=Shape()))
    for _ in range(2):
        [receipt] = (await ActivityEnvironment().run(place.release_slot, ref())).receipts
        assert (receipt.resource, receipt.id, receipt.gone) == ("slot", FIRST, Gone.PROVED)
    assert place.gate.slots.free() == 1


async def test_a_slot_that_is_still_held_is_not_proved_gone(
    place: PlaceActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.gate.slots, "release", lambda _: False)
    [receipt] = (await ActivityEnvironment().run(place.release_slot, ref())).receipts
    assert receipt.gone == Gone.UNPROVED


async def test_a_caller_is_let_in_to_its_sandbox_only(place: PlaceActivities) -> None:
    await place.reserve_slot(Reservation(ref=ref(), shape=Shape()))
    await place.allow_caller(AllowCaller(ref=ref(), caller_key="key"))
    await place.allow_caller(AllowCaller(ref=ref(SECOND), caller_key="key"))
    assert place.gate.slots.caller_keys(FIRST) == ("key",)
    assert place.gate.slots.caller_keys(SECOND) == ()


async def test_whoever_waits_for_a_slot_goes_on_when_one_is_released(place: PlaceActivities) -> None:
    await place.reserve_slot(Reservation(ref=ref(), shape=Shape()))
    waiting = asyncio.ensure_future(place.gate.free(()))
    await asyncio.sleep(0)
    assert not waiting.done()
    await ActivityEnvironment().run(place.release_slot, ref())
    await asyncio.wait_for(waiting, 5)
