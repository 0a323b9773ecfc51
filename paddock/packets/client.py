"""The supervisor's end: requests with answers over asyncio, and a short patience for a server being replaced."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.packets.port import MAX_PACKET_BYTES, encode

PATIENCE_S = 5.0
MAX_UNANSWERED = 512
MAX_WAITING = 4096
Answer = dict[str, Any]


class Unanswered(Exception):
    """No answer came, and none will be waited for; the text says why."""


@dataclass(slots=True)
class _Request:
    packet: bytes
    future: "asyncio.Future[Answer]"
    asked: float
    since: float


class PacketClient:
    """Sends requests, matches answers by id, and sends the unanswered again to a replacement of a lost server.

    Made inside a running loop. When the server is gone, requests wait up to `PATIENCE_S` for `replace`; then each of
    them raises Unanswered, and later ones do so at once until a replacement comes.
    """

    def __init__(self, sock: socket.socket, *, server: str, patience_s: float = PATIENCE_S) -> None:
        self._server = server
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, _Request] = {}
        self._to_send: deque[int] = deque()
        self._sent = 0
        self._last_id = 0
        self._sock: socket.socket | None = None
        self._writing = False
        self._lost_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.preamble: Callable[[], Sequence[Mapping[str, object]]] = tuple
        self._attach(sock)

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._requests)

    def request(self, message: Mapping[str, object]) -> "asyncio.Future[Answer]":
        """Send `message` with an id of its own; the future is its answer, or fails with Unanswered."""
        now = self._loop.time()
        try:
            request = self._number(message, now)
        except (ValueError, TypeError) as error:
            request = _Request(b"", self._loop.create_future(), now, now)
            _fail(request, f"a request that is not JSON: {type(error).__name__}")
        if self._closed:
            _fail(request, f"the connection to the {self._server} was closed")
        elif self._lost_since is not None and now - self._lost_since >= self._patience_s:
            _fail(request, f"the {self._server} is gone and was not replaced")
        elif len(self._requests) >= MAX_WAITING:
            _fail(request, f"{MAX_WAITING} requests already wait for the {self._server}")
        elif len(request.packet) > MAX_PACKET_BYTES:
            _fail(request, f"a request over {MAX_PACKET_BYTES} bytes")
        if request.future.done():
            return request.future
        self._requests[self._last_id] = request
        self._to_send.append(self._last_id)
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience_s, self._give_up)
        self._send()
        return request.future

    def replace(self, sock: socket.socket) -> None:
        """Use `sock` from now on; the preamble, then everything unanswered is sent on it, in the order it was asked."""
        self._detach()
        self._lost_since = None
        now = self._loop.time()
        first: dict[int, _Request] = {}
        for message in self.preamble():
            request = self._number(message, now)
            first[self._last_id] = request
        self._requests = {**first, **self._requests}
        for request in self._requests.values():
            request.since = now
        self._to_send = deque(self._requests)
        self._sent = 0
        self._attach(sock)
        self._send()

    def close(self) -> None:
        """Close the socket; whoever still waits gets Unanswered."""
        self._closed = True
        self._detach()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail_all(list(self._requests), f"the connection to the {self._server} was closed")

    def _number(self, message: Mapping[str, object], now: float) -> _Request:
        self._last_id += 1
        return _Request(encode({"id": self._last_id, **message}), self._loop.create_future(), now, now)

    def _attach(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._readable)

    def _detach(self) -> None:
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
            self._writing = False
        self._sock.close()
        self._sock = None

    def _lost(self) -> None:
        self._detach()
        self._lost_since = self._loop.time()
        for request in self._requests.values():
            request.since = self._lost_since

    def _send(self) -> None:
        while self._sock is not None and self._to_send and self._sent < MAX_UNANSWERED:
            request = self._requests.get(self._to_send[0])
            if request is not None:
                try:
                    self._sock.send(request.packet)
                except (BlockingIOError, InterruptedError):
                    if not self._writing:
                        self._loop.add_writer(self._sock.fileno(), self._writable)
                        self._writing = True
                    return
                except OSError:
                    self._lost()
                    return
                self._sent += 1
            self._to_send.popleft()

    def _writable(self) -> None:
        if self._sock is not None and self._writing:
            self._loop.remove_writer(self._sock.fileno())
            self._writing = False
        self._send()

    def _readable(self) -> None:
        while self._sock is not None:
            try:
                data = self._sock.recv(MAX_PACKET_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._lost()
                return
            if not data:
                self._lost()
                return
            answer: Answer = json.loads(data)
            # An answer to a request that was given up still makes room for another one.
            self._sent = max(0, self._sent - 1)
            request = self._requests.pop(answer.get("id", 0), None)
            if request is not None and not request.future.done():
                request.future.set_result(answer)
        self._send()

    def _give_up(self) -> None:
        """Fail what has waited too long; look again when the next one would have."""
        self._timer = None
        now = self._loop.time() + 0.001
        late = [number for number, request in self._requests.items() if self._deadline(request) <= now]
        words = "is gone and was not replaced" if self._lost_since is not None else "does not answer"
        self._fail_all(late, f"the {self._server} {words} (waited {self._patience_s:g} s)")
        if self._requests:
            self._timer = self._loop.call_at(min(map(self._deadline, self._requests.values())), self._give_up)

    def _deadline(self, request: _Request) -> float:
        """A replacement gives a request new time, but replacements that die as well do not do so for ever."""
        return min(request.since + self._patience_s, request.asked + 2 * self._patience_s)

    def _fail_all(self, numbers: list[int], why: str) -> None:
        for number in numbers:
            _fail(self._requests.pop(number), why)


def _fail(request: _Request, why: str) -> None:
    if not request.future.done():
        request.future.set_exception(Unanswered(why))
        # A request that nobody awaits is counted by its callback; asyncio need not warn about it.
        request.future.exception()
