"""A captured connection behaves as any asyncio transport, with the decision in front of it."""

import asyncio
import struct
from typing import cast

import pytest

from paddock.microvm.channel.link import Link
from paddock.microvm.channel.transport import GuestTransport
from tests.microvm.fake_guest import (
    ACCEPT,
    DATA,
    DEADLINE_S,
    EOF,
    OPEN,
    RESET,
    WINDOW,
    FakeGuest,
    Handler,
    connect_body,
    dns_body,
    pair,
    until,
)


class Recorder(asyncio.Protocol):
    def __init__(self, keep_open: bool = False) -> None:
        self.got = bytearray()
        self.log: list[str] = []
        self.keep_open = keep_open
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.got += data

    def eof_received(self) -> bool:
        self.log.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.got = bytearray()
        self._room = bytearray(10)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._room[:nbytes]


async def captured(protocol: asyncio.BaseProtocol) -> tuple[Link, FakeGuest, GuestTransport]:
    handler = Handler()
    link, guest = await pair(handler)
    await guest.send(OPEN, 2, connect_body("203.0.113.7", 443))
    await until(lambda: handler.taken)
    taken = handler.taken[0]
    assert (taken.address, taken.port) == ("203.0.113.7", 443)
    taken.transport.set_protocol(protocol)
    return link, guest, taken.transport


async def silent(guest: FakeGuest) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guest.frame(), 0.03)


async def test_nothing_is_delivered_and_nothing_said_before_accept() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    await guest.send(DATA, 2, b"early")
    await silent(guest)
    assert protocol.got == b""
    with pytest.raises(RuntimeError):
        transport.write(b"x")
    transport.accept()
    assert (await guest.expect(ACCEPT)).stream == 2
    await until(lambda: protocol.got == b"early")
    assert transport.get_extra_info("paddock") == ("203.0.113.7", 443)


async def test_a_refusal_is_a_reset_with_its_reason() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    transport.refuse("no rule allows it")
    reset = await guest.expect(RESET)
    assert (reset.stream, reset.payload) == (2, b"no rule allows it")
    await until(lambda: protocol.lost == [None])
    transport.accept()
    await silent(guest)


async def test_both_halves_end_one_by_one_and_the_stream_then_is_free_without_a_reset() -> None:
    protocol = Recorder(keep_open=True)
    link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.expect(ACCEPT)
    await guest.send(DATA, 2, b"request")
    await guest.send(EOF, 2)
    await until(lambda: protocol.log == ["eof"])
    assert protocol.got == b"request"
    transport.write(b"answer")
    transport.write_eof()
    assert (await guest.expect(DATA)).payload == b"answer"
    await guest.expect(EOF)
    await until(lambda: protocol.lost == [None])
    assert link.mux.streams == {}
    await silent(guest)


async def test_eof_closes_when_the_protocol_does_not_want_to_keep_its_half() -> None:
    protocol = Recorder()
    link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.send(EOF, 2)
    await guest.until(EOF)
    await until(lambda: protocol.lost == [None])
    assert transport.is_closing()
    assert link.mux.streams == {}


async def test_close_sends_what_is_queued_first_and_swallows_what_still_comes() -> None:
    protocol = Recorder()
    link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.expect(ACCEPT)
    transport.write(bytes(300 * 1024))
    transport.close()
    assert protocol.lost == []
    got = 0
    while got < 256 * 1024:
        got += len((await guest.expect(DATA)).payload)
    await guest.send(WINDOW, 2, struct.pack("<Q", got))
    while got < 300 * 1024:
        got += len((await guest.expect(DATA)).payload)
    await guest.expect(EOF)
    await until(lambda: protocol.lost == [None])
    for _ in range(10):
        await guest.send(DATA, 2, bytes(30 * 1024))
    assert (await guest.expect(WINDOW)).stream == 2
    assert protocol.got == b""
    await guest.send(EOF, 2)
    await until(lambda: link.mux.streams == {})


async def test_a_reset_by_the_guest_is_a_lost_connection_with_an_error() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.send(RESET, 2, b"gone away")
    await until(lambda: protocol.lost)
    assert isinstance(protocol.lost[0], ConnectionResetError)
    assert transport.is_closing()
    transport.write(b"into the void")


async def test_abort_resets_and_tells_the_protocol_once() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    transport.accept()
    transport.write(bytes(1 << 20))
    transport.abort()
    transport.abort()
    transport.close()
    await guest.until(RESET)
    await until(lambda: protocol.lost == [None])


async def test_paused_reading_delivers_nothing_gives_no_credit_and_loses_nothing() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.expect(ACCEPT)
    transport.pause_reading()
    for _ in range(8):
        await guest.send(DATA, 2, bytes(32 * 1024 - 1024))
    await guest.send(EOF, 2)
    await silent(guest)
    assert protocol.got == b""
    assert protocol.log == []
    transport.resume_reading()
    await until(lambda: len(protocol.got) == 8 * 31 * 1024 and protocol.log == ["eof"])


async def test_writing_pauses_above_the_high_mark_and_resumes_when_the_guest_stores() -> None:
    protocol = Recorder()
    _link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.expect(ACCEPT)
    transport.write(bytes(256 * 1024))
    assert protocol.log == []
    transport.write(bytes(100 * 1024))
    assert protocol.log == ["pause"]
    assert transport.get_write_buffer_size() == 100 * 1024
    got = 0
    while got < 256 * 1024:
        got += len((await guest.expect(DATA)).payload)
    await guest.send(WINDOW, 2, struct.pack("<Q", 256 * 1024))
    await until(lambda: protocol.log == ["pause", "resume"])
    assert transport.get_write_buffer_size() == 0


async def test_a_buffered_protocol_is_served_too() -> None:
    protocol = Buffered()
    _link, guest, transport = await captured(protocol)
    transport.accept()
    await guest.send(DATA, 2, b"more than ten bytes of data")
    await until(lambda: protocol.got == b"more than ten bytes of data")


async def test_many_writers_share_the_socket_in_turns() -> None:
    handler = Handler(on_connect=lambda transport, address, port: transport.accept())
    _link, guest = await pair(handler)
    for stream in (2, 4, 6):
        await guest.send(OPEN, stream, connect_body())
    await until(lambda: len(handler.taken) == 3)
    for taken in handler.taken:
        taken.transport.write(bytes(1 << 20))
    got: dict[int, int] = {}
    while sum(got.values()) < 3 << 20:
        frame = await guest.frame()
        if frame.kind == DATA:
            got[frame.stream] = got.get(frame.stream, 0) + len(frame.payload)
            await guest.send(WINDOW, frame.stream, struct.pack("<Q", got[frame.stream]))
    assert got == {2: 1 << 20, 4: 1 << 20, 6: 1 << 20}


async def test_asyncios_own_stream_classes_work_on_it() -> None:
    link, guest, transport = await captured(asyncio.Protocol())
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    protocol.connection_made(cast(asyncio.BaseTransport, transport))
    transport.set_protocol(protocol)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    transport.accept()
    await guest.expect(ACCEPT)
    await guest.send(DATA, 2, b"GET /\n")
    assert await asyncio.wait_for(reader.readline(), DEADLINE_S) == b"GET /\n"
    writer.write(bytes(100_000))
    await asyncio.wait_for(writer.drain(), DEADLINE_S)
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), DEADLINE_S)
    await guest.until(EOF)
    await guest.send(EOF, 2)
    await until(lambda: link.mux.streams == {})


async def test_dns_is_answered_with_the_whole_message_or_reset() -> None:
    async def answer(query: bytes, tcp: bool) -> bytes | None:
        if query == b"raise":
            raise RuntimeError("broken resolver")
        return b"answer to " + query if tcp else None

    _link, guest = await pair(Handler(dns_answer=answer))
    await guest.send(OPEN, 2, dns_body(b"query", tcp=True))
    accepted = await guest.expect(ACCEPT)
    assert (accepted.stream, accepted.payload) == (2, b"answer to query")
    for stream, query in ((4, b"query"), (6, b"raise")):
        await guest.send(OPEN, stream, dns_body(query))
        assert (await guest.expect(RESET)).stream == stream


async def test_events_reach_the_handler_and_take_no_stream() -> None:
    handler = Handler()
    link, guest = await pair(handler)
    for index in range(3):
        await guest.send(OPEN, 2, struct.pack("<BBI", 67, index, 3) + b"exe")
    await until(lambda: handler.events == [(0, b"exe"), (1, b"exe"), (2, b"exe")])
    assert link.mux.streams == {}
