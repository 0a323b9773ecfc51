"""The keeper's side of a service's control socket: JSON packets with ids, descriptors beside them."""

import array
import json
import socket
from collections.abc import Callable
from typing import Any

from paddock.packets.port import MAX_PACKET_BYTES

Reply = Callable[[dict[str, Any] | None], None]


class Peer:
    """One service. `ask` calls back once: with the reply, or with None when the service died before it answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._next = 1
        self._waiting: dict[int, Reply] = {}

    def tell(self, words: dict[str, Any], *fds: int) -> bool:
        """Send a packet; False when the service is gone."""
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            self.sock.sendmsg([json.dumps(words).encode()], rights)
        except OSError:
            return False
        return True

    def ask(self, words: dict[str, Any], reply: Reply) -> None:
        number, self._next = self._next, self._next + 1
        self._waiting[number] = reply
        if not self.tell({**words, "id": number}):
            del self._waiting[number]
            reply(None)

    def read(self) -> bool:
        """Handle one packet; False when the service is gone, or speaks what no service does."""
        try:
            packet = self.sock.recv(MAX_PACKET_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not packet:
            return False
        try:
            answer = json.loads(packet)
            number = int(answer.get("id", 0))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return False
        if reply := self._waiting.pop(number, None):
            reply(answer)
        return True

    def close(self) -> None:
        self.sock.close()
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply(None)
