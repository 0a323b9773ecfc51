"""The host's table of slots: promises lapse, boots hold, and every operation may be repeated."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.host.slots import MAX_KEYS, REMEMBERED_S, RESERVED_S, Slots


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(tmp_path: Path, clock: Clock) -> Slots:
    return Slots(tmp_path / "slots.json", 2, clock)


def test_a_full_host_promises_nothing_more(slots: Slots) -> None:
    assert [slots.reserve(f"sb-{n}", f"w-{n}") for n in range(3)] == [True, True, False]
    assert slots.free() == 0
    assert [slot.sandbox_id for slot in slots.held()] == ["sb-0", "sb-1"]


def test_the_same_sandbox_asking_again_takes_no_second_slot_and_holds_longer(slots: Slots, clock: Clock) -> None:
    assert slots.reserve("sb-1", "w")
    clock.now += RESERVED_S - 1
    assert slots.reserve("sb-1", "w")
    clock.now += RESERVED_S - 1
    assert slots.free() == 1


def test_a_promise_that_nobody_boots_frees_itself(slots: Slots, clock: Clock) -> None:
    slots.reserve("sb-1", "w")
    clock.now += RESERVED_S + 1
    assert slots.free() == 2
    assert slots.held() == []


def test_a_booted_sandbox_keeps_its_slot_however_long_it_lives(slots: Slots, clock: Clock) -> None:
    slots.reserve("sb-1", "w")
    assert slots.confirm("sb-1", "w", ())
    clock.now += 100 * RESERVED_S
    assert slots.free() == 1
    assert slots.reserve("sb-1", "w"), "a repeated placement of a booted sandbox is no new one"
    clock.now += 100 * RESERVED_S
    held = slots.get("sb-1")
    assert held
    assert held.confirmed


def test_a_boot_after_the_promise_lapsed_takes_a_free_slot_or_is_refused(slots: Slots, clock: Clock) -> None:
    slots.reserve("late", "w")
    clock.now += RESERVED_S + 1
    assert slots.confirm("late", "w", ())
    slots.reserve("later", "w")
    clock.now += RESERVED_S + 1
    assert slots.confirm("other", "w", ())
    assert not slots.confirm("later", "w", ())


def test_released_means_free_and_again_is_harmless(slots: Slots) -> None:
    slots.confirm("sb-1", "w", ())
    assert slots.release("sb-1")
    assert slots.release("sb-1")
    assert slots.release("never-was")
    assert slots.free() == 2


def test_keys_open_streams_for_an_hour_after_the_end_and_then_no_more(slots: Slots, clock: Clock) -> None:
    slots.reserve("sb-1", "w", ("first",))
    slots.allow("sb-1", "second")
    slots.allow("sb-1", "second")
    assert slots.caller_keys("sb-1") == ("first", "second")
    slots.release("sb-1")
    slots.release("sb-1")  # repeated: it must not forget the keys
    assert slots.caller_keys("sb-1") == ("first", "second")
    clock.now += REMEMBERED_S + 1
    slots.reserve("another", "w")
    slots.release("another")
    assert slots.caller_keys("sb-1") == ()


def test_a_late_reader_is_let_in_for_an_hour_after_the_end(slots: Slots, clock: Clock) -> None:
    slots.confirm("sb-1", "sandbox/a", ("first",))
    slots.release("sb-1")
    slots.allow("sb-1", "late")
    assert slots.caller_keys("sb-1") == ("first", "late")


def test_the_newest_keys_stay(slots: Slots) -> None:
    slots.confirm("sb-1", "sandbox/a", ("first",))
    for number in range(MAX_KEYS):
        slots.allow("sb-1", f"key-{number}")
    assert len(slots.caller_keys("sb-1")) == MAX_KEYS
    assert "first" not in slots.caller_keys("sb-1")
    slots.release("sb-1")
    slots.allow("sb-1", "late")
    assert (len(slots.caller_keys("sb-1")), slots.caller_keys("sb-1")[-1]) == (MAX_KEYS, "late")


def test_nobody_is_let_in_to_a_sandbox_that_is_not_held(slots: Slots) -> None:
    slots.allow("sb-1", "key")
    assert slots.caller_keys("sb-1") == ()
    slots.reserve("sb-1", "w")
    assert slots.caller_keys("sb-1") == (), "an empty list of keys is no key"


def test_the_next_process_finds_what_was_promised(tmp_path: Path, clock: Clock) -> None:
    Slots(tmp_path / "slots.json", 1, clock).confirm("sb-1", "w", ("key",))
    after = Slots(tmp_path / "slots.json", 1, clock)
    assert after.free() == 0
    assert not after.reserve("sb-2", "w")
    assert after.caller_keys("sb-1") == ("key",)
    assert after.release("sb-1")
    last = Slots(tmp_path / "slots.json", 1, clock)
    assert last.free() == 1
    assert last.caller_keys("sb-1") == ("key",)


def test_a_file_that_was_never_written_or_is_none_begins_an_empty_table(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "slots.json").write_text('{"held": ')
    assert Slots(tmp_path / "slots.json", 3, clock).free() == 3


def test_output_is_kept_for_those_who_hold_a_slot_or_did_lately(slots: Slots, clock: Clock) -> None:
    slots.confirm("sb-1", "w", ())
    slots.confirm("sb-2", "w", ())
    slots.release("sb-2")
    assert slots.remembered() == {"sb-1", "sb-2"}
    clock.now += REMEMBERED_S + 1
    assert slots.remembered() == {"sb-1"}


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(("reserve", "confirm", "release", "wait")), st.sampled_from("abcd")), max_size=40
)


@given(OPERATIONS)
def test_never_more_are_held_than_there_are(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, str]]
) -> None:
    clock = Clock()
    slots = Slots(tmp_path_factory.mktemp("slots") / "slots.json", 2, clock)
    booted: set[str] = set()
    for operation, name in operations:
        if operation == "reserve":
            slots.reserve(name, name)
        elif operation == "confirm" and slots.confirm(name, name, ()):
            booted.add(name)
        elif operation == "release":
            slots.release(name)
            booted.discard(name)
        else:
            clock.now += RESERVED_S / 2
        assert 0 <= slots.free() <= 2
        assert booted <= {slot.sandbox_id for slot in slots.held() if slot.confirmed}
