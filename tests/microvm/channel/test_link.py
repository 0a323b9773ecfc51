"""The link over a socketpair: programs, files, probes, and sessions that end."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.frames import sync
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ExecRequest, How, Identity, Known, ProbeKind
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
    exit_body,
    pair,
    until,
)

ECHO = ExecRequest(("/bin/echo", "hi"), (("A", "1"),), "/work", 1000, 1001, stdin=True)


class Output:
    def __init__(self) -> None:
        self.by_chan = {1: bytearray(), 2: bytearray()}

    def __call__(self, chan: int, data: memoryview) -> None:
        self.by_chan[chan] += data


async def soon(awaitable):  # type: ignore[no-untyped-def]
    return await asyncio.wait_for(awaitable, DEADLINE_S)


async def test_sync_hello_and_open_are_written_before_the_guest_says_a_word() -> None:
    ours, its = socket.socketpair()
    link = await Link.open(ours, identity=IDENTITY, guest=Handler())
    output = Output()
    handle = link.exec(ECHO, output)
    guest = FakeGuest(its)
    hello = await guest.begin()
    assert hello == (
        b"\1"
        + struct.pack("<q", 1)
        + struct.pack("<I", 32)
        + b"\1" * 32
        + b"\3\0box"
        + b"\x20\0"
        + b"0" * 32
        + bytes(4)
    )
    opened = await guest.expect(OPEN)
    assert opened.stream % 2 == 1
    assert opened.payload == (
        b"\1\1"
        + struct.pack("<II", 1000, 1001)
        + b"\5\0/work"
        + b"\2\0" + b"\x09\0\0\0/bin/echo" + b"\2\0\0\0hi"
        + b"\1\0" + b"\3\0\0\0A=1"
    )  # fmt: skip
    await guest.send(ACCEPT, opened.stream, struct.pack("<I", 42))
    await guest.send(DATA, opened.stream, b"out", 1)
    await guest.send(DATA, opened.stream, b"err", 2)
    for chan in (1, 2):
        await guest.send(EOF, opened.stream, b"", chan)
    await guest.send(EXIT, opened.stream, exit_body(0, 3, "m"))
    assert await soon(handle.started()) == 42
    status = await soon(handle.exit())
    assert (status.how, status.value, status.message) == (How.EXITED, 3, "m")
    assert output.by_chan == {1: b"out", 2: b"err"}
    handle.forget()
    assert (await guest.expect(FORGET)).stream == opened.stream


async def test_a_program_that_is_not_there_fails_started_with_the_kind_that_says_so() -> None:
    link, guest = await pair()
    handle = link.exec(ECHO, Output())
    opened = await guest.expect(OPEN)
    await guest.send(EXIT, opened.stream, exit_body(2, 127, "no such file"))
    with pytest.raises(PaddockError, match="no such file") as caught:
        await soon(handle.started())
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert (await soon(handle.exit())).how is How.NEVER_STARTED


async def test_stdin_waits_for_the_guests_credit_and_arrives_whole() -> None:
    link, guest = await pair()
    handle = link.exec(ECHO, Output())
    stream = (await guest.expect(OPEN)).stream
    data = bytes(range(256)) * 8000

    async def write() -> None:
        await handle.write_stdin(data)
        handle.stdin_eof()

    writing = asyncio.ensure_future(write())
    got = bytearray()
    while len(got) < 256 * 1024:
        got += (await guest.expect(DATA)).payload
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guest.frame(), 0.05)
    assert len(got) == 256 * 1024
    assert not writing.done()
    await guest.send(WINDOW, stream, struct.pack("<Q", len(got)))
    while len(got) < len(data):
        got += (await guest.expect(DATA)).payload
        await guest.send(WINDOW, stream, struct.pack("<Q", len(got)))
    await guest.expect(EOF)
    await soon(writing)
    assert got == data


async def test_credit_is_given_for_output_that_is_stored_and_withheld_while_paused() -> None:
    link, guest = await pair()
    output = Output()
    handle = link.exec(ECHO, output)
    stream = (await guest.expect(OPEN)).stream
    handle.pause()
    for _ in range(8):
        await guest.send(DATA, stream, bytes(32 * 1024 - 1024), 1)
    await until(lambda: len(output.by_chan[1]) == 8 * 31 * 1024)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guest.frame(), 0.05)
    handle.resume()
    window = await guest.expect(WINDOW)
    assert (window.chan, struct.unpack("<Q", window.payload)[0]) == (1, 8 * 31 * 1024)
    assert not link.closed.done()


async def test_a_consumer_that_cannot_store_output_kills_the_program_and_the_caller_reads_why() -> None:
    link, guest = await pair()

    def full(chan: int, data: memoryview) -> None:
        raise OSError(28, "no space")

    handle = link.exec(ECHO, full)
    stream = (await guest.expect(OPEN)).stream
    await guest.send(DATA, stream, b"x", 1)
    assert (await guest.expect(SIGNAL)).payload == b"\x09"
    with pytest.raises(OSError, match="no space"):
        await soon(handle.exit())
    assert not link.closed.done()


async def test_signals_pings_and_identities_go_through_in_order() -> None:
    link, guest = await pair()
    handle = link.exec(ECHO, Output())
    await guest.expect(OPEN)
    handle.signal(15)
    assert (await guest.expect(SIGNAL)).payload == b"\x0f"
    ping = asyncio.ensure_future(link.ping())
    await guest.send(PING, 0, (await guest.expect(PING)).payload)
    assert await soon(ping) >= 0
    answer = link.identify(Identity("other", "1" * 32))
    assert b"other" in (await guest.expect(HELLO)).payload
    await guest.send(HELLO, 0, b"\1\1\0b\1\0a\0\0")
    assert (await soon(answer)).boot_id == "b"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_files_go_in_and_a_refused_member_comes_back_with_the_guests_words() -> None:
    link, guest = await pair()
    putting = asyncio.ensure_future(link.put_files("/work", chunks(b"tar", b"tail"), 1, 2))
    opened = await guest.expect(OPEN)
    assert opened.payload == b"\2\5\0/work" + struct.pack("<II", 1, 2)
    assert [(await guest.expect(DATA)).payload for _ in range(2)] == [b"tar", b"tail"]
    await guest.expect(EOF)
    await guest.send(EXIT, opened.stream, exit_body(3, 0, "../evil: not below the root"))
    with pytest.raises(PaddockError, match=r"\.\./evil"):
        await soon(putting)
    assert (await guest.expect(FORGET)).stream == opened.stream


async def test_a_transfer_that_the_guest_ends_early_does_not_wait_for_credit_for_ever() -> None:
    link, guest = await pair()
    putting = asyncio.ensure_future(link.put_files("/work", chunks(*[bytes(65536)] * 100), 1, 2))
    opened = await guest.expect(OPEN)
    await guest.send(EXIT, opened.stream, exit_body(3, 0, "disk full"))
    with pytest.raises(PaddockError, match="disk full"):
        await soon(putting)


async def collect(source: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in source])


async def test_files_come_out_under_back_pressure_and_end_with_exit() -> None:
    link, guest = await pair()
    getting = asyncio.ensure_future(collect(link.get_files("/work", ["*.txt"], 1 << 20)))
    opened = await guest.expect(OPEN)
    assert opened.payload == b"\3\5\0/work" + struct.pack("<QH", 1 << 20, 1) + b"\5\0*.txt"
    await guest.send(DATA, opened.stream, b"one", 1)
    await guest.send(DATA, opened.stream, b"two", 1)
    await guest.send(EOF, opened.stream, b"", 1)
    await guest.send(EXIT, opened.stream, exit_body())
    assert await soon(getting) == b"onetwo"


async def test_a_guest_that_sends_more_files_than_asked_for_is_cut_off_with_words() -> None:
    link, guest = await pair()
    getting = asyncio.ensure_future(collect(link.get_files("/work", ["*"], 1000)))
    opened = await guest.expect(OPEN)
    sent = 0
    while not getting.done() and sent < 8 << 20:
        await guest.send(DATA, opened.stream, bytes(32 * 1024 - 1024), 1)
        sent += 31 * 1024
        await asyncio.sleep(0)
    with pytest.raises(PaddockError, match="larger than 1000 bytes") as caught:
        await soon(getting)
    assert caught.value.kind is ErrorKind.OUTPUT_LIMIT
    assert sent < 3 << 20
    assert (await guest.until(RESET)).stream == opened.stream


async def test_probes_answer_with_the_guests_words() -> None:
    link, guest = await pair()
    for how, value, message, ok in ((0, 0, "10.1.2.3", True), (0, 1, "refused", False), (3, 0, "broken", False)):
        probing = asyncio.ensure_future(link.probe(ProbeKind.TCP, "10.1.2.3", 80))
        opened = await guest.until(OPEN)
        assert opened.payload == b"\4\2\x08\x0010.1.2.3\x50\x00"
        await guest.send(EXIT, opened.stream, exit_body(how, value, message))
        result = await soon(probing)
        assert (result.ok, result.text) == (ok, message)


async def test_everything_under_way_fails_with_sandbox_lost_when_the_vm_goes_away() -> None:
    link, guest = await pair()
    handle = link.exec(ECHO, Output())
    ping = asyncio.ensure_future(link.ping())
    getting = asyncio.ensure_future(collect(link.get_files("/", ["*"], 1)))
    await guest.until(PING)
    guest.sock.close()
    await closed(link)
    for waiting in (handle.started(), handle.exit(), ping, getting):
        with pytest.raises(PaddockError) as caught:
            await soon(waiting)
        assert caught.value.kind is ErrorKind.SANDBOX_LOST
    with pytest.raises(PaddockError):
        link.exec(ECHO, Output())


async def test_a_new_host_takes_programs_over_without_losing_or_repeating_a_byte() -> None:
    ours, its = socket.socketpair()
    again = ours.dup()
    guest = FakeGuest(its)
    first = await Link.open(ours, identity=IDENTITY, guest=Handler())
    handle = first.exec(ECHO, Output())
    await guest.begin()
    stream = (await guest.expect(OPEN)).stream
    old = guest.pack(DATA, stream, b"never read", 1)
    first.close()
    with pytest.raises(PaddockError):
        await soon(handle.exit())

    output, adopted = Output(), []

    def on_known(link: Link, known: Known) -> None:
        adopted.append(link.adopt(known, output, stdout=105, stderr=7))

    second = await Link.open(again, identity=IDENTITY, guest=Handler(), resume=True, on_known=on_known)
    fresh = second.exec(ECHO, Output())
    assert fresh.stream_id != stream
    # The guest still had bytes of the old session on their way; it replays from offset 100.
    await guest.begin(known=((stream, 100, 7),), stale=old + sync(4711) + old[:9])
    await guest.send(DATA, stream, b"fghij-and-more", 1)
    await guest.send(DATA, stream, b"error", 2)
    await guest.send(EXIT, stream, exit_body(0, 0))
    await soon(second.hello())
    assert (await soon(adopted[0].exit())).value == 0
    assert output.by_chan == {1: b"-and-more", 2: b"error"}


async def test_an_adopted_program_has_a_whole_window_of_credit_from_its_base() -> None:
    ours, its = socket.socketpair()
    guest = FakeGuest(its)
    output = Output()
    link = await Link.open(
        ours,
        identity=IDENTITY,
        guest=Handler(),
        on_known=lambda on, known: on.adopt(known, output, stdout=known.stdout, stderr=0) and None,
    )
    await guest.begin(known=((9, 1 << 40, 0),))
    for _ in range(8):
        await guest.send(DATA, 9, bytes(32 * 1024 - 1024), 1)
    assert struct.unpack("<Q", (await guest.until(WINDOW)).payload)[0] > 1 << 40
    assert not link.closed.done()
