"""A real recorder in a forked process, and a test's way to be its keeper."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.audit.recorder import RecorderConfig, main

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "local/h1"
KEYS = {NAME: KEY.public_key()}


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


class Keeper:
    """Forks a recorder over `directory` and speaks the keeper's protocol to it."""

    def __init__(self, directory: Path, before: Callable[[], None] = lambda: None, **config: Any) -> None:
        self.directory = directory
        self.config = RecorderConfig(directory=directory, host="h1", environment="local", **config)
        self.before = before
        self.pid = 0
        self._id = 0
        self.start()

    def start(self) -> None:
        self.control, theirs = pair()
        self.control.settimeout(10)
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                self.control.close()
                self.before()
                code = main(theirs, self.config, KEY)
            finally:
                os._exit(code)
        theirs.close()

    def adopt(self, sandbox: str = "sb-1") -> socket.socket:
        mine, theirs = pair()
        order = {"op": "adopt", "sandbox": sandbox, "project": "default", "owner": "ana", "run": "r1"}
        socket.send_fds(self.control, [json.dumps(order).encode()], [theirs.fileno()])
        theirs.close()
        mine.settimeout(10)
        return mine

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        self._id += 1
        self.control.send(json.dumps({"op": op, "id": self._id, **fields}).encode())
        answer: dict[str, Any] = json.loads(self.control.recv(1 << 17))
        assert answer["id"] == self._id
        return answer

    def seal(self, sandbox: str = "sb-1") -> dict[str, Any]:
        return self.ask("seal", sandbox=sandbox)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.control.close()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            self.kill()


def say(sock: socket.socket, kind: str = "egress.request", number: int = 1, **event: Any) -> None:
    mode = event.pop("mode", "strict")
    event = {"kind": kind, "action_id": f"a{number}", "detail": {"n": number}, **event}
    sock.send(json.dumps({"id": number, "mode": mode, "event": event}).encode())


def hear(sock: socket.socket) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(sock.recv(1 << 17))
    return answer


def record(sock: socket.socket, number: int, **event: Any) -> dict[str, Any]:
    say(sock, number=number, **event)
    return hear(sock)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
