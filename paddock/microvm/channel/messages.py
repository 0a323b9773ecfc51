"""Bodies of HELLO, OPEN and EXIT (docs/channel.md): values in, bytes out, and back; hostile bytes raise Violation."""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from paddock.microvm.channel.frames import MAX_PAYLOAD, Violation

VERSION: Final = 1


class Op(IntEnum):
    """What an OPEN asks for."""

    EXEC = 1
    FILES_IN = 2
    FILES_OUT = 3
    PROBE = 4
    SHUTDOWN = 6
    CONNECT = 65
    DNS = 66
    EVENT = 67


class How(IntEnum):
    """How a program, or a transfer, ended."""

    EXITED = 0
    SIGNALLED = 1
    NEVER_STARTED = 2
    FAILED = 3


class ProbeKind(IntEnum):
    """What a probe tries from inside the guest."""

    DNS = 1
    TCP = 2
    UDP = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes one clone differ from the next; what is 0 or empty is left as it is in the guest."""

    hostname: str = ""
    machine_id: str = ""
    time_ns: int = 0
    seed: bytes = field(default=b"", repr=False)
    ca: bytes = b""


@dataclass(frozen=True, slots=True)
class Known:
    """A program that the guest still knows, and where its unacknowledged output begins."""

    stream: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The guest's answer to HELLO."""

    boot_id: str
    agent: str
    known: tuple[Known, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One program to run in the guest, as `uid` and `gid`, without a shell."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/work"
    uid: int = 1000
    gid: int = 1000
    stdin: bool = False


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: `value` is its exit code or signal; `message` the guest's words."""

    how: How
    value: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Connect:
    """A captured connection's original destination."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Dns:
    """A captured DNS query."""

    tcp: bool
    message: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """The guest's word about itself, never a fact."""

    kind: int
    payload: bytes


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 0xFFFF:
        raise ValueError("a string of more than 65535 bytes")
    return struct.pack("<H", len(raw)) + raw


def _blob(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


def _whole(body: bytes) -> bytes:
    if len(body) > MAX_PAYLOAD:
        raise ValueError(f"{len(body)} bytes do not fit in one frame of {MAX_PAYLOAD}")
    return body


def hello(identity: Identity) -> bytes:
    """Payload of the host's HELLO."""
    return _whole(
        struct.pack("<Bq", VERSION, identity.time_ns)
        + _blob(identity.seed)
        + _text(identity.hostname)
        + _text(identity.machine_id)
        + _blob(identity.ca)
    )


def open_exec(request: ExecRequest) -> bytes:
    """Payload of OPEN for a program; ValueError when argv and env do not fit in one frame."""
    parts = [struct.pack("<BBII", Op.EXEC, int(request.stdin), request.uid, request.gid), _text(request.cwd)]
    for words in (request.argv, tuple(f"{name}={value}" for name, value in request.env)):
        parts.append(struct.pack("<H", len(words)))
        parts += [_blob(word.encode(errors="surrogateescape")) for word in words]
    return _whole(b"".join(parts))


def open_files_in(path: str, uid: int, gid: int) -> bytes:
    """Payload of OPEN for a tar to be unpacked at `path`."""
    return _whole(bytes([Op.FILES_IN]) + _text(path) + struct.pack("<II", uid, gid))


def open_files_out(root: str, globs: tuple[str, ...], max_bytes: int) -> bytes:
    """Payload of OPEN for a tar of what matches below `root`."""
    head = bytes([Op.FILES_OUT]) + _text(root) + struct.pack("<QH", max_bytes, len(globs))
    return _whole(head + b"".join(_text(glob) for glob in globs))


def open_probe(kind: ProbeKind, name: str, port: int) -> bytes:
    """Payload of OPEN for a probe."""
    return _whole(bytes([Op.PROBE, kind]) + _text(name) + struct.pack("<H", port))


def open_shutdown() -> bytes:
    """Payload of OPEN that powers the guest off."""
    return bytes([Op.SHUTDOWN])


class Reader:
    """A bounded cursor over one payload; every read beyond its end raises Violation."""

    __slots__ = ("_at", "_data")

    def __init__(self, payload: bytes | memoryview) -> None:
        self._data = bytes(payload)
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise Violation("a message that ends too early")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        """The next little endian number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        """The next `str`; bytes that are not UTF-8 are replaced."""
        return self.take(self.number(2)).decode(errors="replace")

    def blob(self) -> bytes:
        """The next `blob`."""
        return self.take(self.number(4))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def done(self) -> None:
        """Raise Violation when bytes are left."""
        if self._at != len(self._data):
            raise Violation("a message with bytes behind its end")


def parse_hello(payload: memoryview) -> Hello:
    """The guest's HELLO."""
    reader = Reader(payload)
    if (version := reader.number(1)) != VERSION:
        raise Violation(f"version {version} of the channel, {VERSION} is spoken")
    boot_id, agent, count = reader.text(), reader.text(), reader.number(2)
    known = tuple(Known(reader.number(4), reader.number(8), reader.number(8)) for _ in range(count))
    reader.done()
    if any(one.stream % 2 == 0 for one in known):
        raise Violation("a program on a stream that the host cannot have opened")
    return Hello(boot_id, agent, known)


def parse_open(payload: memoryview) -> Connect | Dns | Event:
    """What a guest's OPEN asks for; any op that a guest may not use is a Violation."""
    reader = Reader(payload)
    op = reader.number(1)
    if op == Op.CONNECT:
        connect = Connect(reader.text(), reader.number(2))
        reader.done()
        return connect
    if op == Op.DNS:
        query = Dns(bool(reader.number(1)), reader.blob())
        reader.done()
        return query
    if op == Op.EVENT:
        event = Event(reader.number(1), reader.blob())
        reader.done()
        return event
    raise Violation(f"an OPEN with op {op}, which a guest may not use")


def parse_exit(payload: memoryview) -> ExitStatus:
    """The body of EXIT."""
    reader = Reader(payload)
    how, value = reader.number(1), reader.number(4)
    if how > How.FAILED:
        raise Violation(f"an EXIT of unknown kind {how}")
    return ExitStatus(How(how), value, reader.rest().decode(errors="replace"))
