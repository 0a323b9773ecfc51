"""A guest that breaks a rule loses its VM, with words; one that only uses its rights never does."""

import asyncio
import contextlib
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.frames import encode, sync
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ExecRequest, parse_exit, parse_hello, parse_open
from paddock.microvm.channel.mux import Limits
from tests.microvm.fake_guest import (
    ACCEPT,
    DATA,
    DEADLINE_S,
    EOF,
    EXIT,
    FORGET,
    HELLO,
    IDENTITY,
    OPEN,
    PING,
    RESET,
    SIGNAL,
    WINDOW,
    FakeGuest,
    Handler,
    closed,
    connect_body,
    dns_body,
    exit_body,
    hello_body,
    pair,
    until,
)

TRUE = ExecRequest(("/bin/true",))


async def test_a_violation_fails_what_is_under_way_and_says_which_rule() -> None:
    link, guest = await pair()
    handle = link.exec(TRUE, lambda chan, data: None)
    await guest.send(FORGET, 0)
    assert "kind 9" in await closed(link)
    assert link.violated
    with pytest.raises(PaddockError, match="broke a rule") as caught:
        await handle.exit()
    assert caught.value.kind is ErrorKind.GUEST_VIOLATION


@pytest.mark.parametrize(
    ("kind", "stream", "payload", "chan", "words"),
    [
        (SIGNAL, 0, b"\x09", 0, "kind 10"),
        (12, 0, b"", 0, "kind 12"),
        (255, 0, b"", 0, "kind 255"),
        (HELLO, 0, hello_body(), 0, "HELLO that was not asked for"),
        (PING, 0, b"", 0, "PING that was not asked for"),
        (OPEN, 2, b"\1" + bytes(20), 0, "op 1"),
        (OPEN, 2, b"\xff", 0, "op 255"),
        (OPEN, 2, b"", 0, "ends too early"),
        (OPEN, 3, connect_body(), 0, "not the guest's"),
        (OPEN, 0, connect_body(), 0, "not the guest's"),
        (OPEN, 2, connect_body() + b"x", 0, "behind its end"),
        (OPEN, 2, connect_body("evil.example"), 0, "not an address"),
        (OPEN, 2, dns_body(b"q")[:-1], 0, "ends too early"),
        (DATA, 0xFFFFFFFF, b"x", 1, "never opened"),
        (EXIT, 2, exit_body(), 0, "guest's own"),
        (ACCEPT, 4, b"", 0, "guest's own"),
    ],
)
async def test_a_frame_that_a_guest_may_not_send_ends_the_session(
    kind: int, stream: int, payload: bytes, chan: int, words: str
) -> None:
    link, guest = await pair()
    await guest.send(kind, stream, payload, chan)
    assert words in await closed(link)
    assert link.violated


@pytest.mark.parametrize(
    ("kind", "payload", "chan", "words"),
    [
        (DATA, b"x", 0, "channel 0"),
        (DATA, b"x", 3, "channel 3"),
        (EOF, b"", 9, "channel 9"),
        (WINDOW, bytes(7), 0, "not one offset"),
        (WINDOW, struct.pack("<Q", 1), 0, "beyond what was sent"),
        (EXIT, b"\0", 0, "ends too early"),
        (EXIT, exit_body(4), 0, "unknown kind 4"),
    ],
)
async def test_a_frame_that_does_not_fit_a_program_ends_the_session(
    kind: int, payload: bytes, chan: int, words: str
) -> None:
    link, guest = await pair()
    link.exec(TRUE, lambda chan, data: None)
    stream = (await guest.expect(OPEN)).stream
    await guest.send(kind, stream, payload, chan)
    assert words in await closed(link)


async def test_data_behind_eof_ends_the_session() -> None:
    link, guest = await pair()
    link.exec(TRUE, lambda chan, data: None)
    stream = (await guest.expect(OPEN)).stream
    await guest.send(EOF, stream, b"", 1)
    await guest.send(DATA, stream, b"x", 1)
    assert "behind EOF" in await closed(link)


async def test_one_byte_beyond_the_credit_ends_the_session_and_the_last_byte_within_does_not() -> None:
    link, guest = await pair()
    got = bytearray()
    handle = link.exec(TRUE, lambda chan, data: got.extend(data))
    handle.pause()
    stream = (await guest.expect(OPEN)).stream
    for _ in range(256):
        await guest.send(DATA, stream, bytes(1024), 2)
    await until(lambda: len(got) == 256 * 1024)
    assert not link.closed.done()
    await guest.send(DATA, stream, b"x", 2)
    assert "in flight" in await closed(link)


@pytest.mark.parametrize("wrong", ["session", "trailer", "length", "reserved", "sync"])
async def test_a_frame_that_is_not_of_this_session_ends_it(wrong: str) -> None:
    link, guest = await pair()
    frame = bytearray(guest.pack(PING, 0, b"abc"))
    if wrong == "sync":
        frame[:] = sync(guest.session) + bytes(8)
    else:
        frame[{"session": 8, "trailer": -1, "length": 2, "reserved": 14}[wrong]] ^= 0xFF
    await guest.raw(bytes(frame))
    assert await closed(link)
    assert link.violated


async def test_a_sixty_fifth_unanswered_open_ends_the_session_and_sixty_four_wait_in_peace() -> None:
    handler = Handler()
    link, guest = await pair(handler)
    for index in range(64):
        await guest.send(OPEN, 2 + 2 * index, connect_body())
    await until(lambda: len(handler.taken) == 64)
    assert not link.closed.done()
    await guest.send(OPEN, 1000, connect_body())
    assert "unanswered" in await closed(link)


async def test_more_streams_than_allowed_end_the_session() -> None:
    handler = Handler(on_connect=lambda transport, address, port: transport.accept())
    link, guest = await pair(handler, Limits(streams=20))
    for index in range(20):
        await guest.send(OPEN, 2 + 2 * index, connect_body())
    await until(lambda: len(handler.taken) == 20)
    assert not link.closed.done()
    await guest.send(OPEN, 1000, connect_body())
    assert "more than 20 open streams" in await closed(link)


async def test_a_flood_of_opens_ends_the_session_even_when_each_is_answered() -> None:
    handler = Handler(on_connect=lambda transport, address, port: transport.refuse("no"))
    link, guest = await pair(handler, Limits(opens_per_s=1, opens_burst=50))

    async def flood() -> None:
        for index in range(1000):
            await guest.send(OPEN, 2 + 2 * index, connect_body())
            await guest.expect(RESET)

    with pytest.raises((EOFError, ConnectionError)):
        await flood()
    assert "OPENs a second" in await closed(link)
    assert len(handler.taken) == 50


async def test_a_stream_number_in_use_cannot_be_opened_again() -> None:
    link, guest = await pair()
    await guest.send(OPEN, 2, connect_body())
    await guest.send(OPEN, 2, connect_body())
    assert "in use" in await closed(link)


async def test_too_much_unread_stops_the_reading_until_it_is_stored_and_nothing_is_lost() -> None:
    link, guest = await pair(limits=Limits(unread_bytes=300_000))
    got = dict.fromkeys(range(4), 0)
    handles = []
    for which in got:

        def keep(chan: int, data: memoryview, which: int = which) -> None:
            got[which] += len(data)

        handles.append(link.exec(TRUE, keep))
        handles[-1].pause()
    streams = [(await guest.expect(OPEN)).stream for _ in handles]
    # 1 MiB within every stream's credit: the cap, and one read of 256 KiB beyond it, is what stops it.
    payload = bytes(8 * 1024)

    async def pour() -> None:
        for _ in range(32):
            for stream in streams:
                await guest.send(DATA, stream, payload, 1)

    pouring = asyncio.ensure_future(pour())
    await until(lambda: sum(got.values()) > 300_000)
    await asyncio.sleep(0.05)
    assert sum(got.values()) <= 300_000 + 8 * 32768
    assert not pouring.done()
    assert not link.closed.done()
    for handle in handles:
        handle.resume()
    await asyncio.wait_for(pouring, DEADLINE_S)
    await until(lambda: sum(got.values()) == 4 * 32 * len(payload))


async def test_a_guest_that_never_reads_while_it_makes_the_host_answer_loses_its_vm() -> None:
    big = bytes(30_000)

    async def answer(query: bytes, tcp: bool) -> bytes | None:
        return big

    link, guest = await pair(Handler(dns_answer=answer))

    async def flood() -> None:
        for index in range(2000):
            await guest.send(OPEN, 2 + 2 * index, dns_body(b"q"))
            await asyncio.sleep(0)

    with pytest.raises((ConnectionError, TimeoutError)):
        await flood()
    assert "does not read" in await closed(link)


async def test_frames_of_a_stream_that_the_host_just_reset_are_no_offence() -> None:
    link, guest = await pair()
    handle = link.exec(TRUE, lambda chan, data: None)
    stream = (await guest.expect(OPEN)).stream
    handle.forget()
    for kind, payload, chan in ((ACCEPT, bytes(4), 0), (DATA, b"late", 1), (EOF, b"", 1), (EXIT, exit_body(1, 9), 0)):
        await guest.send(kind, stream, payload, chan)
    ping = asyncio.ensure_future(link.ping())
    await guest.until(PING)
    await guest.send(PING, 0)
    await asyncio.wait_for(ping, DEADLINE_S)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 13), st.integers(0, 12), st.binary(max_size=40), st.integers(0, 4)), max_size=25)
)
def test_any_sequence_of_well_formed_frames_is_survived_or_ends_the_session(
    script: list[tuple[int, int, bytes, int]],
) -> None:
    async def run() -> None:
        ours, its = socket.socketpair()
        problems: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        guest = FakeGuest(its)
        handler = Handler(on_connect=lambda transport, address, port: transport.accept())
        link = await Link.open(ours, identity=IDENTITY, guest=handler)
        await guest.begin()
        handle = link.exec(TRUE, lambda chan, data: None)
        opened = await guest.expect(OPEN)
        wire = b"".join(
            encode(guest.session, kind, opened.stream if stream == 1 else stream, payload, chan)
            for kind, stream, payload, chan in script
        )
        await guest.raw(wire)
        guest.sock.shutdown(socket.SHUT_WR)
        await closed(link)
        with contextlib.suppress(PaddockError):
            await asyncio.wait_for(handle.exit(), DEADLINE_S)
        guest.sock.close()
        assert problems == []

    asyncio.run(run())


@given(st.binary(max_size=300))
def test_any_body_parses_or_is_a_violation(body: bytes) -> None:
    from paddock.microvm.channel.frames import Violation

    for parse in (parse_hello, parse_open, parse_exit):
        try:
            parse(memoryview(body))
        except Violation:
            pass
