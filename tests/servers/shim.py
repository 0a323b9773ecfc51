"""Stands in for the channel: loopback TCP connections become captured connections of a guest, for a real gateway."""

import asyncio
import contextlib
import ssl
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from paddock.egress.config import Connection
from paddock.egress.gateway import Gateway
from paddock.egress.ports import Secret, SecretUnavailable
from paddock.policy.compile import Compiled, compile_policy
from paddock.policy.document import parse


class Captured(asyncio.Transport):
    """A socket's transport with `accept` and `refuse`: nothing is read before it is accepted."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self.inner = inner
        self.accepted = False
        self.refused: str | None = None
        self.early: list[bytes] = []

    def accept(self) -> None:
        self.accepted = True
        self.inner.resume_reading()
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        """What came although reading was paused: some loops begin to read after `connection_made`."""
        early, self.early = self.early, []
        for data in early:
            cast(asyncio.Protocol, self.inner.get_protocol()).data_received(data)

    def refuse(self, reason: str) -> None:
        self.refused = reason
        self.inner.abort()

    def __getattribute__(self, name: str) -> Any:
        if name in ("accept", "refuse", "inner", "accepted", "refused", "early", "deliver", "__class__"):
            return object.__getattribute__(self, name)
        return getattr(self.inner, name)


class _Hold(asyncio.Protocol):
    def __init__(self, gateway: Gateway, address: str, port: int, log: list[Captured]) -> None:
        self._gateway, self._address, self._port, self._log = gateway, address, port, log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        inner = cast(asyncio.Transport, transport)
        inner.pause_reading()
        captured = Captured(inner)
        self._log.append(captured)
        self._captured = captured
        self._gateway.connect(captured, self._address, self._port)

    def data_received(self, data: bytes) -> None:
        self._captured.early.append(data)


@dataclass
class Event:
    """One recorded event."""

    kind: str
    decision: str
    rule: str
    action_id: str
    detail: Mapping[str, JsonValue]
    strict: bool


class MemoryAudit:
    """Keeps events; `failing` makes every strict one impossible, `slow` holds them back."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failing: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def record(
        self,
        kind: str,
        *,
        decision: str = "",
        rule: str = "",
        action_id: str = "",
        detail: Mapping[str, JsonValue],
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        self.events.append(Event(kind, decision, rule, action_id, detail, True))

    def note(
        self,
        kind: str,
        *,
        decision: str = "",
        rule: str = "",
        action_id: str = "",
        detail: Mapping[str, JsonValue],
    ) -> None:
        self.events.append(Event(kind, decision, rule, action_id, detail, False))

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


class NoAudit:
    """Records nothing, at no cost."""

    async def record(self, kind: str, **_: Any) -> None:
        pass

    def note(self, kind: str, **_: Any) -> None:
        pass


@dataclass
class MemorySecrets:
    """Gives values by reference."""

    values: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str, int, str, str]] = field(default_factory=list)
    expires_at: float = float("inf")

    async def fetch(self, ref: str, *, rule: str, host: str, port: int, method: str, path: str) -> Secret:
        self.asked.append((ref, rule, host, port, method, path))
        if ref not in self.values:
            raise SecretUnavailable("no such secret")
        return Secret(self.values[ref], self.expires_at)


def policy(text: str) -> Compiled:
    """A compiled policy from YAML."""
    return compile_policy(parse(text, "test.yaml"))


def a_query(name: str) -> bytes:
    """A DNS query for the IPv4 address of `name`."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


class Guest:
    """What a program in the guest can do: look a name up, connect, speak."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.captured: list[Captured] = []
        self._servers: dict[tuple[str, int], asyncio.Server] = {}

    async def look_up(self, name: str) -> str | None:
        answer = await self.gateway.dns(a_query(name), False)
        assert answer is not None
        if answer[3] & 15 or not struct.unpack("!H", answer[6:8])[0]:
            return None
        return ".".join(str(b) for b in answer[-4:])

    async def listen(self, address: str, port: int) -> int:
        """A loopback port that stands for the guest connecting to `address:port`."""
        server = self._servers.get((address, port))
        if server is None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(
                lambda: _Hold(self.gateway, address, port, self.captured), "127.0.0.1", 0, backlog=512
            )
            self._servers[address, port] = server
        return int(server.sockets[0].getsockname()[1])

    def context(self) -> ssl.SSLContext:
        """Trusts the fence's authority and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.gateway.ca_pem.decode())
        return context

    async def connect(
        self, name: str, port: int = 443, *, tls: bool = True, sni: str | None = None, limit: int = 1 << 20
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = await self.look_up(name)
        assert address is not None, f"{name} does not resolve"
        local = await self.listen(address, port)
        if not tls:
            return await asyncio.open_connection("127.0.0.1", local, limit=limit)
        return await asyncio.open_connection(
            "127.0.0.1", local, ssl=self.context(), server_hostname=sni or name, limit=limit
        )

    async def raw(self, data: bytes, name: str, port: int = 443, *, tls: bool = True, within: float = 5.0) -> bytes:
        """Everything that comes back for these bytes until the connection closes or is quiet after a whole answer."""
        reader, writer = await self.connect(name, port, tls=tls)
        writer.write(data)
        try:
            async with asyncio.timeout(within):
                return await read_answer(reader, head_only=data.startswith(b"HEAD"))
        finally:
            writer.close()

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for captured in self.captured:
            captured.inner.abort()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> bytes:
    """One whole HTTP answer as it stood on the wire, or all there was when the connection closed before."""
    out = b""
    try:
        out = await reader.readuntil(b"\r\n\r\n")
        lower = out.lower()
        if out.startswith(b"HTTP/1.1 100"):
            return out + await read_answer(reader, head_only=head_only)
        if head_only or out.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
            return out
        if b"transfer-encoding: chunked" in lower:
            while True:
                line = await reader.readuntil(b"\r\n")
                out += line
                size = int(line, 16)
                out += await reader.readexactly(size + 2)
                if not size:
                    return out
        if b"content-length: " in lower:
            length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
            return out + await reader.readexactly(length)
        return out + await reader.read()
    except asyncio.IncompleteReadError as partial:
        return out + partial.partial
    except (ConnectionError, ssl.SSLError):
        return out


def body_of(answer: bytes) -> bytes:
    """The body of an answer, chunks joined."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while rest:
        size_text, _, rest = rest.partition(b"\r\n")
        size = int(size_text, 16)
        if not size:
            break
        body, rest = body + rest[:size], rest[size + 2 :]
    return body


@dataclass
class Fenced:
    """A gateway with a guest before it."""

    gateway: Gateway
    guest: Guest
    audit: MemoryAudit
    secrets: MemorySecrets


@contextlib.asynccontextmanager
async def fenced(
    compiled: Compiled,
    connections: tuple[Connection, ...] = (),
    values: Mapping[str, bytes] | None = None,
    **options: Any,
) -> AsyncIterator[Fenced]:
    """A gateway that enforces `compiled`, for one test."""
    audit, secrets = MemoryAudit(), MemorySecrets(dict(values or {}))
    options.setdefault("clock", time.time)
    gateway = Gateway(sandbox="sb-test", connections=connections, audit=audit, secrets=secrets, **options)
    gateway.apply(compiled)
    guest = Guest(gateway)
    try:
        yield Fenced(gateway, guest, audit, secrets)
    finally:
        await guest.close()
        await gateway.close()
