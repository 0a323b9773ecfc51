"""The multiplexer: frames of one session in, calls of sinks out, and the caps that end a hostile guest's VM."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from paddock.microvm.channel.frames import Decoder, Kind, Violation, encode
from paddock.microvm.channel.messages import Connect, Dns, Event, Hello, parse_exit, parse_hello, parse_open
from paddock.microvm.channel.stream import Sink, Stream

CONNECTION_CHANS: Final = 0b001
PROGRAM_CHANS: Final = 0b110
NO_CHANS: Final = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one guest may take; beyond the counts and the rate it loses its VM, beyond the bytes it waits."""

    streams: int = 512
    unanswered: int = 64
    opens_per_s: float = 5000.0
    opens_burst: float = 5000.0
    unread_bytes: int = 16 << 20


class Owner(Protocol):
    """What the mux asks of the link around it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def answered(self, hello: Hello) -> None:
        """The guest answered a HELLO."""

    def pong(self, payload: bytes) -> None:
        """The guest echoed a PING."""

    def connection(self, stream: Stream, connect: Connect) -> Sink:
        """The guest captured a connection; answers who takes it."""

    def query(self, stream: Stream, query: Dns) -> Sink:
        """The guest captured a DNS query; answers who takes it."""

    def event(self, event: Event) -> None:
        """The guest says something about itself."""

    def hold(self, on: bool) -> None:
        """Stop (or again start) reading the socket: too much is unread."""


class Mux:
    """Streams of one session. Feed `decoder`; everything else is a method call."""

    def __init__(self, session: int, owner: Owner, clock: Callable[[], float], limits: Limits) -> None:
        self.session = session
        self.writable = True
        self.decoder = Decoder(session, self._deliver)
        self.streams: dict[int, Stream] = {}
        self._owner = owner
        self._clock = clock
        self._limits = limits
        # A base from the session keeps a new host's ids apart from those of programs it has yet to hear of.
        self._next = (session & 0x3FFFFFFF) * 2 + 1
        self._known: set[int] = set()
        self._blocked: dict[int, Stream] = {}
        self._unanswered: set[int] = set()
        self._tokens, self._tokens_at = limits.opens_burst, clock()
        self._unread = 0
        self._held = False
        self._hellos = self._pings = 0
        self._cork: list[bytes] | None = None
        self._closed = False
        handlers: dict[int, Callable[[int, int, memoryview], None]] = {
            Kind.HELLO: self._hello,
            Kind.OPEN: self._open,
            Kind.ACCEPT: self._accept,
            Kind.DATA: self._data,
            Kind.WINDOW: self._window,
            Kind.EOF: self._eof,
            Kind.RESET: self._reset,
            Kind.EXIT: self._exit,
            Kind.PING: self._pong,
        }
        self._handlers = tuple(handlers.get(kind) for kind in range(256))

    # sending -----------------------------------------------------------------------------------------------

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Frames made inside leave in one write."""
        if self._cork is not None:
            yield
            return
        frames: list[bytes] = []
        self._cork = frames
        try:
            yield
        finally:
            self._cork = None
            if frames and not self._closed:
                self._owner.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def frame(self, kind: Kind, stream: int, payload: bytes | memoryview = b"", chan: int = 0) -> None:
        """Send one frame."""
        if self._closed:
            return
        if kind in (Kind.ACCEPT, Kind.RESET):
            self._unanswered.discard(stream)
        data = encode(self.session, kind, stream, payload, chan)
        if self._cork is None:
            self._owner.write(data)
        else:
            self._cork.append(data)

    def say_hello(self, payload: bytes) -> None:
        """Send HELLO; exactly one answer is owed."""
        self._hellos += 1
        self.frame(Kind.HELLO, 0, payload)

    def ping(self, payload: bytes) -> None:
        """Send PING; exactly one echo is owed."""
        self._pings += 1
        self.frame(Kind.PING, 0, payload)

    def open(self, body: bytes, sink: Sink, chans: int = PROGRAM_CHANS) -> Stream:
        """Open a stream to the guest."""
        while self._next in self.streams:
            self._next += 2
        stream = self._register(self._next, chans)
        stream.sink = sink
        self._next += 2
        self.frame(Kind.OPEN, stream.id, body)
        return stream

    def adopt(self, stream_id: int, sink: Sink) -> Stream:
        """Take over a program that the guest named in its HELLO."""
        if stream_id in self.streams:
            raise Violation("a program on a stream that is in use")
        stream = self._register(stream_id, PROGRAM_CHANS)
        stream.sink = sink
        return stream

    def set_writable(self, writable: bool) -> None:
        """The socket's buffer has room, or not; waiting streams take turns, one frame each."""
        self.writable = writable
        while self.writable and self._blocked:
            stream = self._blocked.pop(next(iter(self._blocked)))
            before = stream.queued_bytes
            stream.pump(1)
            if self.writable and 0 < stream.queued_bytes < before:
                self._blocked[stream.id] = stream

    def blocked(self, stream: Stream) -> None:
        """`stream` waits for the socket."""
        self._blocked[stream.id] = stream

    def unread(self, count: int) -> None:
        """Count bytes that consumers hold; too many stop the reading of the socket until half are stored."""
        self._unread += count
        if not self._held and self._unread > self._limits.unread_bytes:
            self._held = True
            self._owner.hold(True)
        elif self._held and self._unread < self._limits.unread_bytes // 2:
            self._held = False
            self._owner.hold(False)

    def drop(self, stream: Stream) -> None:
        """The stream is closed."""
        self.streams.pop(stream.id, None)
        self._blocked.pop(stream.id, None)
        self._unanswered.discard(stream.id)

    def close(self, reason: str, violation: bool) -> None:
        """The channel is over: every stream hears it."""
        self._closed = True
        for stream in list(self.streams.values()):
            stream.close()
            if stream.sink is not None:
                stream.sink.gone(reason, violation)

    # receiving; every byte below comes from a hostile guest ------------------------------------------------

    def received(self, count: int) -> None:
        """`count` bytes were read into `decoder.buffer()`; raises Violation."""
        with self.corked():
            self.decoder.received(count)

    def _deliver(self, kind: int, chan: int, stream: int, payload: memoryview) -> None:
        if self._closed:
            return
        handler = self._handlers[kind]
        if handler is None:
            raise Violation(f"a frame of kind {kind}, which a guest may not send")
        handler(stream, chan, payload)

    def _register(self, stream_id: int, chans: int) -> Stream:
        stream = self.streams[stream_id] = Stream(self, stream_id, chans)
        return stream

    def _find(self, stream_id: int) -> Stream | None:
        # A frame of a stream that was just closed here is no offence: it was on its way.
        stream = self.streams.get(stream_id)
        if stream is None and stream_id % 2 and self._next <= stream_id and stream_id not in self._known:
            raise Violation("a frame on a stream that was never opened")
        return stream

    def _program(self, stream_id: int, what: str) -> Stream | None:
        if stream_id % 2 == 0:
            raise Violation(f"{what} on a stream of the guest's own")
        return self._find(stream_id)

    def _data(self, stream_id: int, chan: int, payload: memoryview) -> None:
        if (stream := self._find(stream_id)) is not None:
            stream.receive(chan, payload)
        elif not payload:
            raise Violation("DATA without a byte")

    def _window(self, stream_id: int, _chan: int, payload: memoryview) -> None:
        if (stream := self._find(stream_id)) is not None:
            stream.receive_window(payload)

    def _eof(self, stream_id: int, chan: int, _payload: memoryview) -> None:
        if (stream := self._find(stream_id)) is not None:
            stream.receive_eof(chan)

    def _accept(self, stream_id: int, _chan: int, payload: memoryview) -> None:
        stream = self._program(stream_id, "ACCEPT")
        if stream is not None and stream.sink is not None:
            stream.sink.accepted(bytes(payload))

    def _exit(self, stream_id: int, _chan: int, payload: memoryview) -> None:
        stream = self._program(stream_id, "EXIT")
        if stream is not None and stream.sink is not None:
            stream.sink.exited(parse_exit(payload))

    def _reset(self, stream_id: int, _chan: int, payload: memoryview) -> None:
        if (stream := self._find(stream_id)) is not None:
            stream.close()
            if stream.sink is not None:
                stream.sink.gone(bytes(payload[:512]).decode(errors="replace"), False)

    def _hello(self, _stream: int, _chan: int, payload: memoryview) -> None:
        if not self._hellos:
            raise Violation("a HELLO that was not asked for")
        self._hellos -= 1
        hello = parse_hello(payload)
        self._known.update(one.stream for one in hello.known)
        self._owner.answered(hello)

    def _pong(self, _stream: int, _chan: int, payload: memoryview) -> None:
        if not self._pings:
            raise Violation("a PING that was not asked for")
        self._pings -= 1
        self._owner.pong(bytes(payload))

    def _open(self, stream_id: int, _chan: int, payload: memoryview) -> None:
        self._spend_token()
        asked = parse_open(payload)
        if stream_id % 2 or not stream_id or stream_id in self.streams:
            raise Violation(f"an OPEN on stream {stream_id}, which is not the guest's or in use")
        if isinstance(asked, Event):
            self._owner.event(asked)
            return
        if len(self._unanswered) >= self._limits.unanswered:
            raise Violation(f"more than {self._limits.unanswered} OPENs unanswered at once")
        if len(self.streams) >= self._limits.streams:
            raise Violation(f"more than {self._limits.streams} open streams")
        self._unanswered.add(stream_id)
        stream = self._register(stream_id, CONNECTION_CHANS if isinstance(asked, Connect) else NO_CHANS)
        take = self._owner.connection(stream, asked) if isinstance(asked, Connect) else self._owner.query(stream, asked)
        if not stream.closed:
            stream.sink = take

    def _spend_token(self) -> None:
        now = self._clock()
        limits = self._limits
        self._tokens = min(limits.opens_burst, self._tokens + (now - self._tokens_at) * limits.opens_per_s)
        self._tokens_at = now
        if self._tokens < 1.0:
            raise Violation(f"more than {limits.opens_per_s:.0f} OPENs a second")
        self._tokens -= 1.0
