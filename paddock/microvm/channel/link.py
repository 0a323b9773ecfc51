"""The host's end of the channel on a socket: the session, and what the host asks of the guest in it."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, cast

from paddock.microvm.channel import messages
from paddock.microvm.channel.captured import Captured, GuestHandler
from paddock.microvm.channel.frames import Violation, filler, sync
from paddock.microvm.channel.handle import ExecHandle, OnOutput, lost
from paddock.microvm.channel.messages import Connect, Dns, Event, ExecRequest, Hello, Identity, Known, ProbeKind
from paddock.microvm.channel.mux import Limits, Mux
from paddock.microvm.channel.stream import Sink, Stream
from paddock.microvm.channel.transfer import FilesOut, Patience, ProbeResult, finished, probed, silent, within

_UNSENT_LIMIT: Final = 8 << 20
"""A guest that lets this much wait in the socket's buffer does not read: streams stop far below it."""


class Link(asyncio.BufferedProtocol):
    """One session with one guest; made by `open`."""

    def __init__(
        self,
        guest: GuestHandler,
        limits: Limits,
        clock: Callable[[], float],
        on_known: "OnKnown | None",
        patience: Patience,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._captured = Captured(guest, self._loop)
        self._on_known = on_known
        self._patience = patience
        self._session = secrets.randbelow(0xFFFFFFFF) + 1
        self.mux = Mux(self._session, self, clock, limits)
        self._hellos: list[asyncio.Future[Hello]] = []
        self._pings: list[asyncio.Future[None]] = []
        self._first: asyncio.Future[Hello] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.violated = False

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        *,
        identity: Identity,
        guest: GuestHandler,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        resume: bool = False,
        on_known: "OnKnown | None" = None,
        patience: Patience | None = None,
    ) -> "Link":
        """Take `sock` and write SYNC and HELLO at once, without waiting for the guest.

        `resume`: another host spoke on this socket before and may have been cut in the middle of a frame. `on_known` is
        called for each program that the guest still knows, at the only moment when `adopt` loses no byte of it.
        """
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        link = cls(guest, limits or Limits(), clock, on_known, patience or Patience())
        await loop.create_connection(lambda: link, sock=sock)
        link.write((filler() if resume else b"") + sync(link._session))
        link._first = link._say_hello(identity)  # no hurry: the guest may still have to boot
        return link

    # what the host asks of the guest -----------------------------------------------------------------------

    async def hello(self) -> Hello:
        """The guest's answer to the first HELLO: identity, clock and entropy are applied."""
        assert self._first is not None
        return await asyncio.shield(self._first)

    def identify(self, identity: Identity) -> "asyncio.Future[Hello]":
        """Give the guest a new identity. Sent at once; the future is its answer, which a paused guest owes.

        PaddockError SANDBOX_LOST after 10 s: resume the guest at once.
        """
        answer = self._say_hello(identity)
        timer = self._loop.call_later(self._patience.identify_s, self._unanswered, answer)
        answer.add_done_callback(lambda _: timer.cancel())
        return answer

    def _say_hello(self, identity: Identity) -> "asyncio.Future[Hello]":
        self._check()
        answer: asyncio.Future[Hello] = self._loop.create_future()
        self._hellos.append(answer)
        self.mux.say_hello(messages.hello(identity))
        return answer

    def exec(self, request: ExecRequest, on_output: OnOutput) -> ExecHandle:
        """Start a program; frames are written at once, also before the guest is loaded."""
        handle = ExecHandle(self._loop, on_output)
        self._open(messages.open_exec(request), handle)
        return handle

    def adopt(self, known: Known, on_output: OnOutput, *, stdout: int, stderr: int) -> ExecHandle:
        """Take over a program from inside `on_known`; `stdout`, `stderr`: how many bytes of each are already stored."""
        handle = ExecHandle(self._loop, on_output, (max(0, stdout - known.stdout), max(0, stderr - known.stderr)))
        stream = self.mux.adopt(known.stream, handle)
        stream.start_at(1, known.stdout)
        stream.start_at(2, known.stderr)
        handle.attach(stream)
        return handle

    async def put_files(self, path: str, chunks: AsyncIterator[bytes], uid: int, gid: int) -> None:
        """Unpack a tar at `path`; PaddockError with the guest's words when it refuses a member, or stands still."""
        patience = self._patience.transfer_s
        handle = ExecHandle(self._loop, lambda chan, data: None)
        stream = self._open(messages.open_files_in(path, uid, gid), handle)
        try:
            async for chunk in chunks:
                if handle.exited_yet():
                    break
                await within(handle.write_stdin(chunk), patience, "no file was taken", lambda: stream.taken_steps)
            handle.stdin_eof()
            status = await within(handle.exit(), patience, "files were not taken", lambda: stream.taken_steps)
            finished(status, "files could not be put into the guest")
        finally:
            self._forget(handle)

    async def get_files(self, root: str, globs: Iterable[str], max_bytes: int) -> AsyncIterator[bytes]:
        """A tar of what matches below `root`; PaddockError OUTPUT_LIMIT beyond `max_bytes`. The tar is hostile."""
        transfer = FilesOut(self._loop, max_bytes, self._patience.transfer_s)
        self._open(messages.open_files_out(root, tuple(globs), max_bytes), transfer)
        try:
            while (chunk := await transfer.next()) is not None:
                yield chunk
        finally:
            self._forget(transfer)

    async def probe(self, kind: ProbeKind, name: str, port: int = 0) -> ProbeResult:
        """Try something from inside the guest; the result is the guest's word. PaddockError when it says none."""
        handle = ExecHandle(self._loop, lambda chan, data: None)
        self._open(messages.open_probe(kind, name, port), handle)
        try:
            return probed(await within(handle.exit(), self._patience.probe_s, "no end of a probe", lambda: 0))
        finally:
            self._forget(handle)

    async def ping(self) -> float:
        """Seconds until the guest's echo."""
        self._check()
        begin = time.monotonic()
        echo: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(echo)
        self.mux.ping(b"")
        await asyncio.shield(echo)
        return time.monotonic() - begin

    def shutdown(self) -> None:
        """Ask the guest to power off; the VM's `exited` tells whether it did."""
        self._open(messages.open_shutdown(), ExecHandle(self._loop, lambda chan, data: None))

    def close(self) -> None:
        """End the session from here; the socket is closed."""
        self._end("closed by the host", False)

    # asyncio.BufferedProtocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=512 * 1024)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self.mux.decoder.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the guest."""
        try:
            self.mux.received(nbytes)
        except Violation as broken:
            self._end(str(broken), True)

    def eof_received(self) -> bool:
        """The VMM closed its end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._end(str(exc) if exc else "the VM is gone", False)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.mux.set_writable(False)

    def resume_writing(self) -> None:
        """The socket's buffer has room."""
        self.mux.set_writable(True)

    # Owner -------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes; a guest that does not read loses its VM."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > _UNSENT_LIMIT:
            self._loop.call_soon(self._end, f"{_UNSENT_LIMIT} bytes wait for a guest that does not read", True)

    def hold(self, on: bool) -> None:
        """Stop or start reading the socket."""
        if self._transport is not None and not self._transport.is_closing():
            if on:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def answered(self, hello: Hello) -> None:
        """The guest's HELLO."""
        if self._on_known is not None:
            for known in hello.known:
                self._on_known(self, known)
        answer = self._hellos.pop(0)
        if not answer.done():
            answer.set_result(hello)

    def pong(self, payload: bytes) -> None:
        """The guest's echo."""
        echo = self._pings.pop(0)
        if not echo.done():
            echo.set_result(None)

    def connection(self, stream: Stream, connect: Connect) -> Sink:
        """A captured connection."""
        return self._captured.connection(stream, connect)

    def query(self, stream: Stream, query: Dns) -> Sink:
        """A captured DNS query."""
        return self._captured.query(stream, query)

    def event(self, event: Event) -> None:
        """The guest's word about itself."""
        self._captured.event(event)

    # inside ------------------------------------------------------------------------------------------------

    def _open(self, body: bytes, handle: "ExecHandle | FilesOut") -> Stream:
        self._check()
        stream = self.mux.open(body, handle)
        handle.attach(stream)
        return stream

    def _unanswered(self, answer: "asyncio.Future[Hello]") -> None:
        if not answer.done():
            answer.set_exception(silent("no answer to a HELLO", self._patience.identify_s))
            answer.exception()  # read here: not every answer has someone waiting

    def _forget(self, handle: "ExecHandle | FilesOut") -> None:
        if not self.closed.done():
            handle.forget()

    def _check(self) -> None:
        if self.closed.done():
            raise lost(self.closed.result(), self.violated)

    def _end(self, reason: str, violation: bool) -> None:
        if self.closed.done():
            return
        self.violated = violation
        self.closed.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        self.mux.close(reason, violation)
        waiting: list[asyncio.Future[Hello] | asyncio.Future[None]] = [*self._hellos, *self._pings]
        for future in waiting:
            if not future.done():
                future.set_exception(lost(reason, violation))
                future.exception()  # read here: not every answer has someone waiting
        self._captured.close()


OnKnown = Callable[[Link, Known], None]


def fresh_identity(hostname: str, machine_id: str, ca: bytes = b"") -> Identity:
    """An identity with 32 new bytes of entropy and the host's clock; make it just before it is sent."""
    return Identity(hostname, machine_id, time.time_ns(), secrets.token_bytes(32), ca)
