"""Ports on loopback: free ones, and those that somebody named."""

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens on loopback: gRPC, web pages, HTTP API, metrics."""

    grpc: int
    ui: int
    http: int
    metrics: int

    @classmethod
    def free(cls, *, grpc: int = 0, ui: int = 0) -> "Ports":
        """Ports nobody listens on; those that are given are kept, and refused when they are taken."""
        for name, port in (("Temporal", grpc), ("Temporal UI", ui)):
            if port and not is_free(port):
                raise taken(name, port)
        fresh = (port for port in free_ports() if port not in {grpc, ui})
        return cls(grpc or next(fresh), ui or next(fresh), next(fresh), next(fresh))

    def __iter__(self) -> Iterator[int]:
        return iter((self.grpc, self.ui, self.http, self.metrics))


def taken(what: str, port: int) -> PaddockError:
    """The error for a port that somebody else listens on."""
    return PaddockError(
        ErrorKind.SET_UP,
        f"port {port} for {what} is taken",
        field="port",
        remedy="name another one, or 0 for any free one",
    )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as probe:
        # Connections of a server that was just killed linger; they do not keep its successor from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_ports() -> Iterator[int]:
    """Below the range from which the kernel takes ports for outgoing connections, so that none is lost to one."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        lowest = 32768
    candidates = range(15000, lowest) if lowest > 16000 else range(15000, 65536)
    for port in random.SystemRandom().sample(candidates, len(candidates)):
        if is_free(port):
            yield port
    raise PaddockError(ErrorKind.SET_UP, "no free port on this machine")
