"""The frame codec: what was sent is what arrives, however it is cut; what breaks a rule never passes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.microvm.channel.frames import MAX_PAYLOAD, STALE_LIMIT, Decoder, Violation, encode, filler, sync

SESSION = 0x1234ABCD
Got = list[tuple[int, int, int, bytes]]


def decoder(session: int = SESSION) -> tuple[Decoder, Got]:
    got: Got = []
    return Decoder(session, lambda kind, chan, stream, data: got.append((kind, chan, stream, bytes(data)))), got


def feed(to: Decoder, data: bytes, cuts: list[int] | None = None) -> None:
    cuts = cuts or [65536]
    at = turn = 0
    while at < len(data):
        view = to.buffer()
        count = min(cuts[turn % len(cuts)], len(view), len(data) - at)
        view[:count] = data[at : at + count]
        to.received(count)
        at += count
        turn += 1


frames = st.lists(
    st.tuples(
        st.integers(1, 11),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.one_of(st.binary(max_size=64), st.builds(bytes, st.integers(0, MAX_PAYLOAD))),
    ),
    max_size=30,
)


@given(frames, st.lists(st.integers(1, 70000), min_size=1, max_size=5), st.binary(max_size=200))
def test_frames_arrive_whole_and_in_order_however_the_stream_is_cut(sent: Got, cuts: list[int], stale: bytes) -> None:
    to, got = decoder()
    wire = stale + sync(SESSION) + b"".join(encode(SESSION, k, s, data, c) for k, c, s, data in sent)
    feed(to, wire, cuts)
    assert got == sent


@given(st.binary(max_size=4000), st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_random_bytes_behind_sync_are_refused_or_wait_and_are_never_delivered(noise: bytes, cuts: list[int]) -> None:
    to, got = decoder()
    try:
        feed(to, sync(SESSION) + noise, cuts)
    except Violation:
        pass
    assert got == []


@given(frames.filter(bool), st.data())
def test_one_changed_bit_in_a_header_or_trailer_never_changes_what_length_and_session_say(
    sent: Got, data: st.DataObject
) -> None:
    parts = [bytearray(encode(SESSION, k, s, payload, c)) for k, c, s, payload in sent]
    victim = data.draw(st.integers(0, len(parts) - 1))
    place = data.draw(st.sampled_from([8, 9, 10, 11, 14, 15, -1, -2, -3, -4]))
    parts[victim][place] ^= 1 << data.draw(st.integers(0, 7))
    to, got = decoder()
    with pytest.raises(Violation):
        feed(to, sync(SESSION) + b"".join(parts))
    assert got == sent[:victim]


@given(st.binary(max_size=3000), st.integers(1, 50))
def test_stale_bytes_of_an_older_session_are_dropped_also_when_they_hold_its_sync(old: bytes, cut: int) -> None:
    to, got = decoder()
    stale = sync(77) + encode(77, 4, 1, old, 1) + encode(77, 4, 1, b"cut")[:cut]
    feed(to, stale + sync(SESSION) + encode(SESSION, 11, 0, b"now"), [cut])
    assert got == [(11, 0, 0, b"now")]


def test_a_frame_that_says_more_than_fits_is_refused_before_its_payload_is_waited_for() -> None:
    to, _ = decoder()
    with pytest.raises(Violation, match="at most"):
        feed(to, sync(SESSION) + struct.pack("<IIIBBH", MAX_PAYLOAD + 1, 1, SESSION, 4, 0, 0) + b"1234")


def test_a_guest_that_never_answers_sync_is_not_listened_to_for_ever() -> None:
    to, _ = decoder()
    with pytest.raises(Violation, match="without an answer"):
        feed(to, bytes(STALE_LIMIT + 100_000))


def test_a_frame_of_the_largest_payload_passes_and_one_more_byte_cannot_be_sent() -> None:
    to, got = decoder()
    feed(to, sync(SESSION) + encode(SESSION, 4, 1, bytes(MAX_PAYLOAD)))
    assert len(got[0][3]) == MAX_PAYLOAD
    with pytest.raises(ValueError, match="at most"):
        encode(SESSION, 4, 1, bytes(MAX_PAYLOAD + 1))


@given(st.integers(0, MAX_PAYLOAD), st.data())
def test_the_filler_completes_every_cut_frame_so_that_the_next_sync_is_found(size: int, data: st.DataObject) -> None:
    """The guest's rule: a wrong trailer ends the session, then it scans. The filler must be long enough for that."""
    whole = encode(77, 4, 1, bytes(size))
    cut = data.draw(st.integers(1, len(whole)))
    rest = (whole[:cut] + filler())[len(whole) :]
    assert len(whole[:cut] + filler()) >= len(whole)
    assert sync(SESSION) in rest + sync(SESSION)
