"""Frames on a host's own sockets: whole however they are cut, bounded, and failures stay failures."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.host import wire
from paddock.host.messages import Answer, KeeperAsk

FRAMES = st.lists(st.builds(wire.Frame, st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.integers(1, 64))
def test_frames_come_out_whole_however_the_bytes_are_cut(frames: list[wire.Frame], size: int) -> None:
    data = b"".join(frame.pack() for frame in frames)
    splitter = wire.Splitter()
    out = [frame for at in range(0, len(data), size) for frame in splitter.feed(data[at : at + size])]
    assert out == frames


@given(st.integers(wire.MAX_FRAME + 1, 0xFFFFFFFF))
def test_a_frame_that_is_too_long_is_refused_before_it_is_kept(length: int) -> None:
    with pytest.raises(PaddockError, match="frame of"):
        wire.Splitter().feed(wire.HEADER.pack(length, 0))


async def test_a_reader_refuses_a_frame_that_is_too_long() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.HEADER.pack(wire.MAX_FRAME + 1, wire.CONTENT))
    with pytest.raises(PaddockError, match="frame of"):
        await wire.read(reader)


async def test_a_reader_takes_a_frame_of_the_largest_size_and_sees_a_peer_go() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.content(bytes(wire.MAX_FRAME)))
    reader.feed_data(wire.content(b"cut short")[:-1])
    reader.feed_eof()
    assert len((await wire.read(reader)).payload) == wire.MAX_FRAME
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.read(reader)


def test_words_come_out_as_their_model() -> None:
    (frame,) = wire.Splitter().feed(wire.words(KeeperAsk(id=7, op="inventory")))
    assert frame.open(KeeperAsk) == KeeperAsk(id=7, op="inventory")


def test_a_failure_is_raised_with_all_that_it_said() -> None:
    info = ErrorInfo(kind=ErrorKind.DISK_FULL, message="full", field="f", remedy="free some")
    (frame,) = wire.Splitter().feed(wire.failure(info))
    with pytest.raises(PaddockError) as caught:
        frame.open(Answer)
    assert caught.value.info == info


@given(st.binary(max_size=200))
def test_words_that_are_none_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        wire.Frame(wire.WORDS, b"\xff" + payload).open(Answer)
