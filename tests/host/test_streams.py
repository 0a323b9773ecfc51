"""What the host's end of a stream holds for a caller is bounded, and for a stranger nearly nothing."""

from typing import Any, cast

import pytest

from paddock.contracts.streams import MAX_CONTENT, WINDOW, Ack, Chunk, Intake, Window
from paddock.host.streams import STRANGER_BYTES, _Stream


def stream() -> _Stream:
    return _Stream(1, cast(Any, None))


def test_a_stranger_may_leave_a_few_words_and_no_more() -> None:
    one = stream()
    assert one.push("x" * 1000)
    assert not one.push(bytes(STRANGER_BYTES))


def test_an_empty_message_costs_too() -> None:
    one = stream()
    assert not all(one.push("") for _ in range(STRANGER_BYTES))


def test_what_is_taken_makes_room_again() -> None:
    one = stream()
    for _ in range(100):
        assert one.push("x" * 8000)
        one.take()


def test_acknowledgements_open_the_window_and_content_among_them_is_refused() -> None:
    one, window = stream(), Window()
    while window.open():
        window.spend(bytes(MAX_CONTENT))
    one.push(Ack(ack=window.spent).model_dump_json())
    one.acknowledged(window)
    assert window.open()
    one.push(b"content")
    with pytest.raises(ValueError, match="word was expected"):
        one.acknowledged(window)


def test_a_sender_and_a_receiver_never_wait_for_each_other() -> None:
    """Whatever the sizes of messages, a full window always has an acknowledgement due."""
    for size in (0, 1, 100, 32 << 10, MAX_CONTENT):
        window, intake, unheard = Window(), Intake(), 0
        for _ in range(4 * WINDOW // (size + 64)):
            if not window.open():
                assert unheard, f"stalled with messages of {size} bytes"
                window.ack(unheard)
                assert window.open()
            window.spend(bytes(size))
            unheard = intake.take(bytes(size)) or unheard


def test_a_chunk_crosses_as_it_is_and_a_short_one_is_refused() -> None:
    chunk = Chunk(2, 1 << 40, b"bytes")
    assert Chunk.from_bytes(chunk.to_bytes()) == chunk
    with pytest.raises(ValueError, match="too short"):
        Chunk.from_bytes(b"\x01\x00")
