"""A guest agent in Python at the other end of a socketpair: it says what a test tells it to, also what no guest may."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import Identity
from paddock.microvm.channel.mux import Limits
from paddock.microvm.channel.transport import GuestTransport

DEADLINE_S = 10.0
HEAD = struct.Struct("<IIIBBH")
MAGIC = struct.pack("<Q", 0x314B434F44444150)
IDENTITY = Identity("box", "0" * 32, 1, b"\1" * 32)

HELLO, OPEN, ACCEPT, DATA, WINDOW, EOF, RESET, EXIT, FORGET, SIGNAL, PING = range(1, 12)


@dataclass
class Frame:
    kind: int
    chan: int
    stream: int
    payload: bytes


def text(value: str) -> bytes:
    return struct.pack("<H", len(value.encode())) + value.encode()


def hello_body(known: tuple[tuple[int, int, int], ...] = ()) -> bytes:
    body = b"\1" + text("boot") + text("agent 1") + struct.pack("<H", len(known))
    return body + b"".join(struct.pack("<IQQ", *one) for one in known)


def exit_body(how: int = 0, value: int = 0, message: str = "") -> bytes:
    return struct.pack("<BI", how, value) + message.encode()


def connect_body(address: str = "203.0.113.7", port: int = 443) -> bytes:
    return b"\x41" + text(address) + struct.pack("<H", port)


def dns_body(message: bytes, tcp: bool = False) -> bytes:
    return struct.pack("<BBI", 66, tcp, len(message)) + message


class FakeGuest:
    """Frames in, frames out. `session` is the one that the host's last SYNC began."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.session = 0
        self._buffer = bytearray()

    async def _more(self) -> None:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 20), DEADLINE_S)
        if not data:
            raise EOFError
        self._buffer += data

    async def raw(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), DEADLINE_S)

    async def begin(self, known: tuple[tuple[int, int, int], ...] = (), stale: bytes = b"") -> bytes:
        """Find the host's SYNC, answer it and its HELLO; the HELLO's payload."""
        while (at := self._buffer.find(MAGIC)) < 0 or len(self._buffer) < at + 16:
            await self._more()
        sync = bytes(self._buffer[at : at + 16])
        del self._buffer[: at + 16]
        self.session = struct.unpack_from("<I", sync, 8)[0]
        assert struct.unpack_from("<I", sync, 12)[0] == self.session ^ 0xFFFFFFFF
        await self.raw(stale + sync)
        hello = await self.expect(HELLO)
        await self.send(HELLO, 0, hello_body(known))
        return hello.payload

    def pack(self, kind: int, stream: int, payload: bytes = b"", chan: int = 0) -> bytes:
        head = HEAD.pack(len(payload), stream, self.session, kind, chan, 0)
        return head + payload + struct.pack("<I", self.session)

    async def send(self, kind: int, stream: int, payload: bytes = b"", chan: int = 0) -> None:
        await self.raw(self.pack(kind, stream, payload, chan))

    async def frame(self) -> Frame:
        while len(self._buffer) < 20 or len(self._buffer) < 20 + HEAD.unpack_from(self._buffer)[0]:
            await self._more()
        length, stream, session, kind, chan, zero = HEAD.unpack_from(self._buffer)
        payload = bytes(self._buffer[16 : 16 + length])
        trailer = struct.unpack_from("<I", self._buffer, 16 + length)[0]
        assert (session, trailer, zero) == (self.session, self.session, 0)
        assert length <= 32748
        del self._buffer[: 20 + length]
        return Frame(kind, chan, stream, payload)

    async def expect(self, kind: int) -> Frame:
        frame = await self.frame()
        assert frame.kind == kind, f"{frame} where kind {kind} was due"
        return frame

    async def until(self, kind: int) -> Frame:
        while (frame := await self.frame()).kind != kind:
            pass
        return frame


@dataclass
class Taken:
    transport: GuestTransport
    address: str
    port: int


@dataclass
class Handler:
    """A GuestHandler that keeps what it was told; `dns_answer` decides on queries."""

    taken: list[Taken] = field(default_factory=list)
    events: list[tuple[int, bytes]] = field(default_factory=list)
    dns_answer: Callable[[bytes, bool], Awaitable[bytes | None]] | None = None
    on_connect: Callable[[GuestTransport, str, int], None] | None = None

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        self.taken.append(Taken(transport, address, port))
        if self.on_connect is not None:
            self.on_connect(transport, address, port)

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        return None if self.dns_answer is None else await self.dns_answer(query, tcp)

    def event(self, kind: int, payload: bytes) -> None:
        self.events.append((kind, payload))


async def pair(handler: Handler | None = None, limits: Limits | None = None) -> tuple[Link, FakeGuest]:
    """A link with a fake guest that has answered its HELLO."""
    ours, its = socket.socketpair()
    guest = FakeGuest(its)
    link = await Link.open(ours, identity=IDENTITY, guest=handler or Handler(), limits=limits)
    await guest.begin()
    await asyncio.wait_for(link.hello(), DEADLINE_S)
    return link, guest


async def closed(link: Link) -> str:
    """Why the link ended; fails the test when it lives on."""
    return await asyncio.wait_for(asyncio.shield(link.closed), DEADLINE_S)


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until `condition()` is true, at most DEADLINE_S."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.001)
