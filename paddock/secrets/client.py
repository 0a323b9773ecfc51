"""The supervisor's way to the broker: attach the signed policy once, then one secret for one use at a time."""

import base64
import socket
from collections.abc import Mapping

from paddock.packets.client import PATIENCE_S, Answer, PacketClient, Unanswered
from paddock.secrets.store import Secret, SecretUnavailable

PART = 64 << 10


class SecretsClient:
    """One sandbox's secrets. Made inside a running loop; the socket says which sandbox it is."""

    def __init__(self, sock: socket.socket, *, patience_s: float = PATIENCE_S) -> None:
        self._packets = PacketClient(sock, server="broker", patience_s=patience_s)
        self._packets.preamble = self._again
        self._signed = ""

    async def open(self, signed: str) -> None:
        """Attach the signed policy; a store token is opened when it names secrets. Raises SecretUnavailable."""
        self._signed = signed
        while not await self._open_all(signed):
            pass

    async def _open_all(self, signed: str) -> bool:
        """False when the broker was replaced between two pieces."""
        for message in _parts(signed):
            try:
                answer = await self._packets.request(message)
            except Unanswered as unanswered:
                raise SecretUnavailable(str(unanswered)) from unanswered
            if answer.get("again"):
                return False
            _checked(answer)
        return True

    async def fetch(self, ref: str, *, rule: str, host: str, port: int, method: str, path: str) -> Secret:
        """The value for this use, until `expires_at` in seconds since 1970; raises SecretUnavailable."""
        asked = {"op": "fetch", "ref": ref, "rule": rule, "host": host, "port": port, "method": method, "path": path}
        try:
            answer = _checked(await self._packets.request(asked))
        except Unanswered as unanswered:
            raise SecretUnavailable(str(unanswered)) from unanswered
        return Secret(base64.b64decode(answer["value"]), float(answer["expires_at"]))

    def replace(self, sock: socket.socket) -> None:
        """The broker was replaced: use its new socket, attach the policy again, ask again what was not answered."""
        self._packets.replace(sock)

    def close(self) -> None:
        """Close the socket; every waiter gets SecretUnavailable."""
        self._packets.close()

    def _again(self) -> list[Mapping[str, object]]:
        return _parts(self._signed) if self._signed else []


def _checked(answer: Answer) -> Answer:
    if "error" in answer:
        raise SecretUnavailable(str(answer["error"]))
    return answer


def _parts(signed: str) -> list[Mapping[str, object]]:
    pieces = [signed[start : start + PART] for start in range(0, len(signed), PART)] or [""]
    last = len(pieces) - 1
    return [{"op": "open", "policy": text, "part": n, "more": n < last} for n, text in enumerate(pieces)]
