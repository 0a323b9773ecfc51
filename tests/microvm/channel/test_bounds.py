"""What a guest makes its host hold or wait for is bounded: tiny frames, empty frames, answers that never come."""

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.frames import WINDOW
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ExecRequest, Identity, ProbeKind
from paddock.microvm.channel.transfer import Patience
from tests.microvm.fake_guest import (
    DATA,
    DEADLINE_S,
    EOF,
    EXIT,
    HELLO,
    IDENTITY,
    OPEN,
    PING,
    RESET,
    FakeGuest,
    Handler,
    closed,
    connect_body,
    exit_body,
    hello_body,
    pair,
    until,
)

SHORT = Patience(identify_s=0.2, probe_s=0.2, transfer_s=0.2)
TRUE = ExecRequest(("/bin/true",))


async def hasty() -> tuple[Link, FakeGuest]:
    ours, its = socket.socketpair()
    guest = FakeGuest(its)
    link = await Link.open(ours, identity=IDENTITY, guest=Handler(), patience=SHORT)
    await guest.begin()
    await asyncio.wait_for(link.hello(), DEADLINE_S)
    return link, guest


async def collect(source: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in source])


async def alive(link: Link, guest: FakeGuest) -> None:
    ping = asyncio.ensure_future(link.ping())
    await guest.until(PING)
    await guest.send(PING, 0)
    await asyncio.wait_for(ping, DEADLINE_S)


async def silence_of(waiting: "asyncio.Future[Any]") -> str:
    with pytest.raises(PaddockError) as caught:
        await asyncio.wait_for(waiting, DEADLINE_S)
    assert caught.value.kind is ErrorKind.SANDBOX_LOST
    return str(caught.value)


async def test_data_without_a_byte_ends_the_session_on_a_connection_that_nobody_took() -> None:
    handler = Handler()
    link, guest = await pair(handler)
    await guest.send(OPEN, 2, connect_body())
    await until(lambda: handler.taken)
    await guest.send(DATA, 2)
    assert "without a byte" in await closed(link)
    assert link.violated


async def test_data_without_a_byte_ends_the_session_on_a_program_and_on_a_stream_that_is_closed() -> None:
    for forgotten in (False, True):
        link, guest = await pair()
        handle = link.exec(TRUE, lambda chan, data: None)
        stream = (await guest.expect(OPEN)).stream
        if forgotten:
            handle.forget()
        await guest.send(DATA, stream, b"", 1)
        assert "without a byte" in await closed(link)


async def test_tiny_frames_on_a_connection_cost_no_more_memory_than_their_bytes() -> None:
    handler = Handler()
    link, guest = await pair(handler)
    await guest.send(OPEN, 2, connect_body())
    await until(lambda: handler.taken)
    some = guest.pack(DATA, 2, b"ab") * 4096
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(WINDOW // 8192):
            await guest.raw(some)
        await alive(link, guest)  # all of it was parsed
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert link.mux.streams[2].unread_bytes == WINDOW
    assert held < 2 * WINDOW


async def test_tiny_frames_of_a_transfer_cost_no_more_memory_than_their_bytes() -> None:
    link, guest = await pair()
    source = link.get_files("/work", ["*"], 1 << 20)
    first = asyncio.ensure_future(anext(source))
    stream = (await guest.expect(OPEN)).stream
    await guest.send(DATA, stream, b"ab", 1)
    assert await asyncio.wait_for(first, DEADLINE_S) == b"ab"
    some = guest.pack(DATA, stream, b"cd", 1) * 4096
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(WINDOW // 8192 - 1):
            await guest.raw(some)
        await alive(link, guest)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 2 * WINDOW
    await guest.send(EOF, stream, b"", 1)
    await guest.send(EXIT, stream, exit_body())
    assert await asyncio.wait_for(collect(source), DEADLINE_S) == b"cd" * 4096 * (WINDOW // 8192 - 1)


async def test_files_that_came_out_end_with_eof_and_exit_and_not_before() -> None:
    link, guest = await pair()
    getting = asyncio.ensure_future(collect(link.get_files("/work", ["*"], 1 << 20)))
    stream = (await guest.expect(OPEN)).stream
    await guest.send(DATA, stream, b"half of a tar", 1)
    await guest.send(EXIT, stream, exit_body())
    assert "before the EOF" in await closed(link)
    with pytest.raises(PaddockError) as caught:
        await asyncio.wait_for(getting, DEADLINE_S)
    assert caught.value.kind is ErrorKind.GUEST_VIOLATION


async def test_an_empty_frame_does_not_end_a_transfer_as_if_it_were_whole() -> None:
    link, guest = await pair()
    getting = asyncio.ensure_future(collect(link.get_files("/work", ["*"], 1 << 20)))
    stream = (await guest.expect(OPEN)).stream
    await guest.send(DATA, stream, b"half of a tar", 1)
    await guest.send(DATA, stream, b"", 1)
    with pytest.raises(PaddockError) as caught:
        await asyncio.wait_for(getting, DEADLINE_S)
    assert caught.value.kind is ErrorKind.GUEST_VIOLATION


async def test_a_hello_that_is_not_answered_is_given_up_and_a_late_answer_is_no_offence() -> None:
    link, guest = await hasty()
    answer = link.identify(Identity("other"))
    assert "does not answer" in await silence_of(asyncio.ensure_future(answer))
    await guest.expect(HELLO)
    await guest.send(HELLO, 0, hello_body())
    again = link.identify(Identity("another"))
    await guest.expect(HELLO)
    await guest.send(HELLO, 0, hello_body())
    assert (await asyncio.wait_for(again, DEADLINE_S)).boot_id == "boot"


async def test_the_first_hello_has_no_time_out_of_its_own_for_the_guest_may_have_to_boot() -> None:
    ours, its = socket.socketpair()
    guest = FakeGuest(its)
    link = await Link.open(ours, identity=IDENTITY, guest=Handler(), patience=Patience(identify_s=0.01))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(link.hello(), 0.1)
    await guest.begin()
    assert (await asyncio.wait_for(link.hello(), DEADLINE_S)).boot_id == "boot"


async def test_a_probe_that_the_guest_does_not_end_is_given_up_and_reset() -> None:
    link, guest = await hasty()
    probing = asyncio.ensure_future(link.probe(ProbeKind.DNS, "a.example"))
    assert "no end of a probe" in await silence_of(probing)
    assert (await guest.until(RESET)).payload == b"forgotten"
    await alive(link, guest)


async def test_files_that_stop_coming_out_are_given_up_and_reset() -> None:
    link, guest = await hasty()
    getting = asyncio.ensure_future(collect(link.get_files("/work", ["*"], 1 << 20)))
    stream = (await guest.expect(OPEN)).stream
    await guest.send(DATA, stream, b"some", 1)
    assert "no file came out" in await silence_of(getting)
    assert (await guest.until(RESET)).stream == stream


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)


async def once() -> AsyncIterator[bytes]:
    yield b"tar"


@pytest.mark.parametrize("source", [endless, once])
async def test_files_that_the_guest_does_not_take_are_given_up_and_reset(source: object) -> None:
    link, guest = await hasty()
    putting = asyncio.ensure_future(link.put_files("/work", source(), 1, 1))  # type: ignore[operator]
    stream = (await guest.expect(OPEN)).stream
    assert "does not answer" in await silence_of(putting)
    assert (await guest.until(RESET)).stream == stream
    assert link.mux.streams == {}


async def test_a_guest_that_takes_a_byte_at_a_time_makes_no_progress() -> None:
    link, guest = await hasty()
    putting = asyncio.ensure_future(link.put_files("/work", endless(), 1, 1))
    stream = (await guest.expect(OPEN)).stream
    offset = 0
    async with asyncio.timeout(DEADLINE_S):
        while not putting.done():
            offset += 1
            await guest.send(5, stream, offset.to_bytes(8, "little"))
            await asyncio.sleep(0.01)
    assert "no file was taken" in await silence_of(putting)


async def test_a_guest_that_takes_its_time_with_each_step_is_waited_for() -> None:
    link, guest = await hasty()

    async def many() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield bytes(65536)

    putting = asyncio.ensure_future(link.put_files("/work", many(), 1, 1))
    stream = (await guest.expect(OPEN)).stream
    for step in range(1, 17):
        await asyncio.sleep(0.05)  # longer in all than one patience
        await guest.send(5, stream, min(step * 65536, link.mux.streams[stream]._sent).to_bytes(8, "little"))
    await guest.send(EXIT, stream, exit_body())
    await asyncio.wait_for(putting, DEADLINE_S)
