"""The server's end: a non-blocking packet socket, bounded both ways, for single-threaded select loops."""

import json
import selectors
import socket
from collections import deque
from collections.abc import Mapping

from paddock.contracts.base import Wire

MAX_PACKET_BYTES = 128 << 10
MAX_WAITING_ANSWERS = 1024
_buffer = bytearray(MAX_PACKET_BYTES + 1)


class Closed(Exception):
    """The peer is gone, or did what no honest peer does; the text says which."""


class Hello(Wire):
    """The fields that every packet of a keeper has."""

    op: str
    id: int = 0
    sandbox: str = ""


def encode(message: Mapping[str, object]) -> bytes:
    """One packet's bytes; ValueError or TypeError when it is not JSON (NaN and lone surrogates are not)."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class Port:
    """One end of a socketpair inside a select loop; `sandbox` is who the keeper said is at the other end."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, sandbox: str = "") -> None:
        self.sandbox = sandbox
        self._sock = sock
        self._selector = selector
        self._waiting: deque[bytes] = deque()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self)

    @property
    def open(self) -> bool:
        return self._sock.fileno() >= 0

    def receive(self) -> bytes | None:
        """The next packet, or None when there is none now; raises Closed. Descriptors a peer attaches are discarded."""
        try:
            size = self._sock.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise Closed(f"the socket failed: {error}") from error
        if size == 0:
            raise Closed("")
        if size > MAX_PACKET_BYTES:
            raise Closed(f"a packet over {MAX_PACKET_BYTES} bytes")
        return bytes(memoryview(_buffer)[:size])

    def receive_with_descriptor(self) -> tuple[bytes, socket.socket | None] | None:
        """As `receive`, with the one socket that came along; only for the keeper's end."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, MAX_PACKET_BYTES + 1, 4)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise Closed(f"the socket failed: {error}") from error
        came = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for extra in came[1:]:
            extra.close()
        if not data:
            raise Closed("")
        return data, came[0] if came else None

    def send(self, message: Mapping[str, object]) -> None:
        """Queue an answer; a peer that asks without reading answers is closed."""
        if not self.open:
            return
        self._waiting.append(encode(message))
        self.flush()

    def flush(self) -> None:
        """Send what is waiting, as far as the peer takes it."""
        if not self.open:
            return
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
        except (BlockingIOError, InterruptedError):
            if len(self._waiting) > MAX_WAITING_ANSWERS:
                self.close()
                return
        except OSError:
            self.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._waiting else 0)
        if self._selector.get_key(self._sock).events != wanted:
            self._selector.modify(self._sock, wanted, self)

    def close(self) -> None:
        if self.open:
            self._selector.unregister(self._sock)
            self._sock.close()
        self._waiting.clear()
