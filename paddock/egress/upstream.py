"""Reaching a server: resolve, check every address, pin, dial what was checked, verify who answers, keep for reuse."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from paddock.egress.addresses import own_addresses, refused
from paddock.egress.config import Connection
from paddock.egress.http.client import UpstreamConnection
from paddock.egress.http.message import Refused, Why
from paddock.egress.tls.client import client_context

RESOLVE_S: Final = 5.0
DIAL_S: Final = 10.0
PINNED_S: Final = 30.0
IDLE_S: Final = 30.0
_MAX_PINNED: Final = 1024
_MAX_IDLE: Final = 64
_MAX_TRIES: Final = 3

Resolve = Callable[[str, int], Awaitable[Iterable[str]]]


class Key(NamedTuple):
    """What two exchanges must have in common to share a connection; the sandbox is the gateway's own."""

    host: str
    port: int
    tls: bool
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pinned:
    """Checked addresses of one name, and the context that verifies who answers there."""

    addresses: tuple[str, ...]
    port: int
    context: ssl.SSLContext
    until: float


class SystemResolver:
    """getaddrinfo in a few threads of its own, so that a dead name server holds up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="resolve")

    async def __call__(self, name: str, port: int) -> list[str]:
        """Every address of `name`; OSError when there is none."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Give the threads up; one that hangs in a look-up ends with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Upstreams:
    """Connections of one sandbox to servers."""

    def __init__(self, connections: Iterable[Connection], time: Callable[[], float], resolve: Resolve | None) -> None:
        self._operator = {(c.name, c.port): c for c in connections}
        self._time = time
        self._system = SystemResolver() if resolve is None else None
        self._resolve: Resolve = resolve or self._system or SystemResolver()
        self._own = own_addresses()
        self._public = client_context(None)
        # Read now: a supervisor that gave up its privilege may not be able to reach an operator's file any more.
        self._private = {key: client_context(c.ca) for key, c in self._operator.items() if c.ca}
        self._pins: dict[tuple[str, int], Pinned] = {}
        self._idle: dict[Key, list[UpstreamConnection]] = {}
        self._idle_count = 0

    @property
    def idle(self) -> int:
        """How many connections are kept for reuse."""
        return self._idle_count

    def clear_text_secrets(self, name: str, port: int) -> bool:
        """True when the operator says that secrets may go to this name without TLS."""
        operator = self._operator.get((name, port))
        return operator is not None and operator.clear_text_secrets

    async def pin(self, name: str, port: int) -> Pinned:
        """Addresses that may be dialled for `name`; Refused when there is none, or one that no policy may reach."""
        pinned = self._pins.get((name, port))
        now = self._time()
        if pinned is not None and pinned.until > now:
            return pinned
        operator = self._operator.get((name, port))
        if operator is not None:
            address, real_port = operator.endpoint
            context = self._private.get((name, port), self._public)
            pinned = Pinned((address,), real_port, context, float("inf"))
        else:
            addresses = await self._look_up(name, port)
            pinned = Pinned(addresses, port, self._public, now + PINNED_S)
        while len(self._pins) >= _MAX_PINNED:
            self._pins.pop(next(iter(self._pins)))
        self._pins[name, port] = pinned
        return pinned

    async def _look_up(self, name: str, port: int) -> tuple[str, ...]:
        try:
            found = tuple(await asyncio.wait_for(_as_coroutine(self._resolve(name, port)), RESOLVE_S))
        except (OSError, TimeoutError, UnicodeError):
            raise Refused(502, Why.UPSTREAM, "the host's name could not be resolved") from None
        # One refused address condemns all: a mixed answer is how a name is moved to where it must not lead.
        if not found or any(refused(address, self._own) is not None for address in found):
            raise Refused(403, Why.ADDRESS, "the host's name leads to an address that this fence never connects to")
        return found

    async def dial(self, key: Key) -> UpstreamConnection:
        """A fresh connection, verified; Refused when no checked address answers."""
        connection = UpstreamConnection(key)
        await self.connect(lambda: connection, key.host, key.port, tls=key.tls)
        return connection

    def take(self, key: Key, *, longest_idle_s: float = IDLE_S) -> UpstreamConnection | None:
        """A kept connection, or None."""
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop()
            self._idle_count -= 1
            if not connection.closed and self._time() - connection.idle_since < longest_idle_s:
                connection.reused = True
                return connection
            connection.abort()
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange ended cleanly, or drop it."""
        if connection.closed:
            return
        key = connection.key
        if self._idle_count >= _MAX_IDLE or not isinstance(key, Key):
            connection.abort()
            return
        connection.idle_since = self._time()
        self._idle.setdefault(key, []).append(connection)
        self._idle_count += 1

    def tick(self, now: float) -> None:
        """Drop kept connections that are dead or have been idle for long."""
        for key, kept in list(self._idle.items()):
            fresh = [c for c in kept if not c.closed and now - c.idle_since < IDLE_S]
            for connection in kept:
                if connection not in fresh:
                    connection.abort()
            self._idle_count -= len(kept) - len(fresh)
            if fresh:
                self._idle[key] = fresh
            else:
                del self._idle[key]

    def drop_idle(self) -> None:
        """Drop everything that is kept: the policy changed."""
        for kept in self._idle.values():
            for connection in kept:
                connection.abort()
        self._idle.clear()
        self._idle_count = 0

    def close(self) -> None:
        """Drop everything that is kept and the look-up threads."""
        self.drop_idle()
        if self._system is not None:
            self._system.close()

    async def connect(self, factory: Callable[[], asyncio.Protocol], name: str, port: int, *, tls: bool) -> None:
        """Connect `factory`'s protocol to a pinned address of `name`; Refused when none answers as who it should be."""
        pinned = await self.pin(name, port)
        failure: Exception | None = None
        for address in pinned.addresses[:_MAX_TRIES]:
            try:
                await asyncio.wait_for(self._one(factory, address, pinned, name if tls else None), DIAL_S)
                return
            except ssl.SSLCertVerificationError:
                raise Refused(502, Why.UPSTREAM, "the server's certificate is not valid for this host") from None
            except (OSError, TimeoutError) as error:
                failure = error
        words = (
            "the server could not be spoken to over TLS" if isinstance(failure, ssl.SSLError) else "no server answers"
        )
        raise Refused(502, Why.UPSTREAM, words)

    async def _one(
        self, factory: Callable[[], asyncio.Protocol], address: str, pinned: Pinned, name: str | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if name is None:
            await loop.create_connection(factory, address, pinned.port)
        else:
            await loop.create_connection(
                factory, address, pinned.port, ssl=pinned.context, server_hostname=name, ssl_handshake_timeout=DIAL_S
            )


async def _as_coroutine(work: Awaitable[Iterable[str]]) -> Iterable[str]:
    return await work
