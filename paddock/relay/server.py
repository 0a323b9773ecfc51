"""The relay: hosts dial in and stay, callers come and go, and messages pass between them unread.

It authenticates hosts by their token and callers not at all: the host does that, end to end (contracts/streams.py).
Back-pressure is end to end too. What the relay itself holds for a caller is bounded: who overruns it loses the stream.
"""

import asyncio
import hmac
import logging
import re
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Final

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from paddock.contracts.streams import WINDOW, cost
from paddock.relay.frames import MAX_FRAME, BadFrame, Frame, Kind, closing, message

log = logging.getLogger(__name__)

MAX_CALLERS_PER_HOST: Final = 512
MAX_HOSTS: Final = 4096
MAX_HELD: Final = 2 * WINDOW
HOST_GONE: Final = 4503
CLOSED: Final = 4000
_PATH: Final = re.compile(r"/(host|stream)/([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9-]{0,62})")

Address = tuple[str, str]


@dataclass(slots=True)
class _Caller:
    """One caller's stream, and what its socket has not taken yet."""

    socket: ServerConnection
    queue: deque[Frame] = field(default_factory=deque)
    held: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, frame: Frame) -> bool:
        """False when the caller is too far behind."""
        self.held += cost(frame.payload)
        self.queue.append(frame)
        self.wake.set()
        return self.held <= MAX_HELD

    async def drain(self) -> None:
        """Send what comes until the stream's end; the closing word of the host is the last."""
        try:
            while True:
                while self.queue:
                    frame = self.queue.popleft()
                    if frame.kind is Kind.CLOSE:
                        await self.socket.close(CLOSED, frame.payload.decode(errors="replace"))
                        return
                    await self.socket.send(frame.payload, text=frame.kind is Kind.TEXT)
                    self.held -= cost(frame.payload)
                self.wake.clear()
                await self.wake.wait()
        except ConnectionClosed:
            pass  # whoever reads this socket sees it too, and ends the stream


@dataclass(slots=True)
class _Host:
    """A host's connection and the callers joined to it."""

    socket: ServerConnection
    callers: dict[int, _Caller] = field(default_factory=dict)
    numbers: "count[int]" = field(default_factory=lambda: count(1))


class Relay:
    """A running relay; `port` is the one it got, `address` what callers and hosts dial."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("a relay needs a token that hosts must show")
        self._token = token.encode()
        self._hosts: dict[Address, _Host] = {}
        self._server: Server | None = None
        self.host = ""
        self.port = 0

    @property
    def address(self) -> str:
        return f"ws://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when the port is taken."""
        self._server = await listen(
            self._joined,
            host,
            port,
            process_request=self._admit,
            origins=[None],  # a browser always names one, and has no business here
            compression=None,
            max_size=MAX_FRAME,
            server_header=None,
            close_timeout=2,
        )
        self.host = host
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """Close every connection; hosts and callers dial again by themselves."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return socket.respond(HTTPStatus.NOT_FOUND, "paddock relay: no such path\n")
        kind, address = found[1], (found[2], found[3])
        if kind == "host":
            shown = request.headers.get("Authorization", "").encode(errors="replace")
            if not hmac.compare_digest(shown, b"Bearer " + self._token):
                return socket.respond(HTTPStatus.UNAUTHORIZED, "paddock relay: wrong token\n")
            if len(self._hosts) >= MAX_HOSTS:
                return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "paddock relay: too many hosts\n")
            return None
        host = self._hosts.get(address)
        if host is None:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "paddock relay: host not connected\n")
        if len(host.callers) >= MAX_CALLERS_PER_HOST:
            return socket.respond(HTTPStatus.TOO_MANY_REQUESTS, "paddock relay: too many streams to this host\n")
        return None

    async def _joined(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        found = _PATH.fullmatch(socket.request.path)
        assert found is not None
        address = (found[2], found[3])
        try:
            if found[1] == "host":
                await self._serve_host(socket, address)
            else:
                await self._serve_caller(socket, address)
        except ConnectionClosed:
            pass

    async def _serve_host(self, socket: ServerConnection, address: Address) -> None:
        older, host = self._hosts.get(address), _Host(socket)
        self._hosts[address] = host
        log.info("host connected", extra={"environment": address[0], "host": address[1]})
        try:
            if older is not None:
                older.socket.transport.abort()  # the newest is the one alive; a dead one would not answer a close
            async for received in socket:
                self._from_host(host, Frame.from_message(received))
        except BadFrame as wrong:
            log.warning("host cut off: %s", wrong, extra={"environment": address[0], "host": address[1]})
        finally:
            if self._hosts.get(address) is host:
                del self._hosts[address]
            for caller in host.callers.values():
                caller.socket.transport.abort()

    @staticmethod
    def _from_host(host: _Host, frame: Frame) -> None:
        caller = host.callers.get(frame.stream)
        if caller is None:
            return  # the caller left while this was on its way
        if frame.kind is Kind.OPEN:
            raise BadFrame("a host opened a stream")
        if not caller.push(frame):
            caller.socket.transport.abort()

    async def _serve_caller(self, socket: ServerConnection, address: Address) -> None:
        host = self._hosts.get(address)
        if host is None:
            await socket.close(HOST_GONE, "host not connected")
            return
        stream = next(host.numbers)
        caller = host.callers[stream] = _Caller(socket)
        draining = asyncio.create_task(caller.drain())
        try:
            await host.socket.send(Frame(Kind.OPEN, stream).to_bytes())
            async for received in socket:
                frame = message(stream, received).to_bytes()
                if len(frame) > MAX_FRAME:
                    break  # a host would take it for a broken relay
                await host.socket.send(frame)
        finally:
            draining.cancel()
            host.callers.pop(stream, None)
            await host.socket.send(closing(stream, "caller left").to_bytes())


async def serve(host: str, port: int, token: str) -> Relay:
    """A relay that listens on `host` and `port` (0: any free one); raises OSError when the port is taken."""
    relay = Relay(token)
    await relay.start(host, port)
    return relay
