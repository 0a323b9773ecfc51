"""New ends to a restarted recorder or broker, handed over by the keeper on a socket that only it can reach."""

import array
import asyncio
import socket

from paddock.audit.client import AuditClient
from paddock.secrets.client import SecretsClient


class ServiceEnds:
    """Listens for the keeper: a packet `r`, `b` or `rb` with as many descriptors."""

    def __init__(self, keeper: socket.socket, audit: AuditClient, secrets: SecretsClient) -> None:
        self._keeper, self._audit, self._secrets = keeper, audit, secrets

    def serve(self) -> None:
        asyncio.get_running_loop().add_reader(self._keeper.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            there, _ = self._keeper.accept()
        except BlockingIOError:
            return
        with there:
            # The keeper wrote before or right after it connected, and is trusted: waiting a moment for it is fine.
            there.settimeout(1.0)
            fds = array.array("i")
            which, ancillary, _, _ = there.recvmsg(16, socket.CMSG_SPACE(4 * fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for name, fd in zip(which.decode(), fds, strict=False):
            end = socket.socket(fileno=fd)
            end.setblocking(False)
            (self._audit if name == "r" else self._secrets).replace(end)
