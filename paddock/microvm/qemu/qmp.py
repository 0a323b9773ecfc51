"""QEMU's control socket: JSON lines, bounded, because a VMM that a guest took over may speak here."""

import asyncio
import contextlib
import json
import socket
from typing import Any, Final

from paddock.contracts.errors import ErrorKind, PaddockError

_MAX_LINE: Final = 1 << 20


class QmpError(PaddockError):
    """QEMU refused a command, or went away before it answered."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.BOOT_FAILED, message)


class Qmp:
    """Commands go out at once, also several before an answer: QEMU takes them one by one, in order."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._events: dict[str, asyncio.Future[None]] = {}
        self._next = 1
        self._closed = ""
        self._loop.add_reader(sock, self._readable)

    def send(self, command: str, arguments: dict[str, Any] | None = None, fd: int | None = None) -> asyncio.Future[Any]:
        """Send a command, with `fd` beside it; the future is its answer, or QmpError."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.add_done_callback(_read_error)
        if self._closed:
            answer.set_exception(QmpError(f"{command}: {self._closed}"))
            return answer
        number, self._next = self._next, self._next + 1
        self._waiting[number] = (command, answer)
        line = json.dumps({"execute": command, "id": number, "arguments": arguments or {}}).encode() + b"\n"
        try:
            sent = socket.send_fds(self._sock, [line], [] if fd is None else [fd])
        except OSError as error:
            self._close(f"the control socket failed: {error}")
            return answer
        if sent != len(line):
            self._close("the control socket is full")
        return answer

    def event(self, name: str) -> asyncio.Future[None]:
        """Done when QEMU next says `name`; several may wait for one event."""
        future = self._events.get(name)
        if future is None:
            future = self._events[name] = self._loop.create_future()
            future.add_done_callback(_read_error)
            if self._closed:
                future.set_exception(QmpError(f"{name}: {self._closed}"))
        return future

    def close(self) -> None:
        """Close the socket; whoever waits gets QmpError."""
        self._close("closed")

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = b""
            try:
                data = self._sock.recv(65536)
            except ConnectionError as error:
                self._close(str(error))
                return
            if not data:
                self._close("QEMU went away")
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            if len(self._partial) > _MAX_LINE:
                self._close("a line without end")
                return
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._close("a line that is not a JSON object")
            return
        if isinstance(name := message.get("event"), str):
            future = self._events.pop(name, None)
            if future is not None and not future.done():
                future.set_result(None)
            return
        number = message.get("id")
        if not isinstance(number, int) or number not in self._waiting:
            return  # the greeting
        command, answer = self._waiting.pop(number)
        if answer.done():
            return
        if "error" in message:
            error = message["error"]
            words = error.get("desc") if isinstance(error, dict) else error
            answer.set_exception(QmpError(f"{command}: {words}"))
        else:
            answer.set_result(message.get("return"))

    def _close(self, why: str) -> None:
        if self._closed:
            return
        self._closed = why
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for command, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(QmpError(f"{command}: {why}"))
        for name, future in self._events.items():
            if not future.done():
                future.set_exception(QmpError(f"{name}: {why}"))
        self._waiting.clear()


def _read_error(future: "asyncio.Future[Any]") -> None:
    # Some answers have nobody waiting; their errors show up as the VMM's end.
    if not future.cancelled():
        future.exception()
