"""The server's side of TLS over any asyncio transport: memory BIOs between the guest's bytes and an inner protocol.

The event loop's own TLS wants the socket and reads the hello itself. Here the gateway has read the hello, decided
and only then chosen a certificate, and the transport is a captured stream with no socket behind it.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

HANDSHAKE_S: Final = 10.0
_RECORD: Final = 1 << 14
_CUT: Final = "the TLS stream ended without close_notify"


class TlsServerStream(asyncio.Transport, asyncio.Protocol):
    """One object, two faces: the protocol of the outer transport, and the transport of the inner protocol.

    `connection_made(outer)` starts the handshake with the bytes already read; the inner protocol hears of the stream
    once it is done. When it fails, `on_failed` gets a few words (no guest bytes) and the inner protocol nothing.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        inner: asyncio.Protocol,
        *,
        first: bytes | bytearray = b"",
        handshake_s: float = HANDSHAKE_S,
        on_failed: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._context = context
        self._inner = inner
        self._first = bytes(first)
        self._handshake_s = handshake_s
        self._on_failed = on_failed
        self._outer: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up = False
        self._corked: list[bytes | bytearray | memoryview] | None = None
        self._read_paused = self._write_paused = False
        self._closing = self._peer_done = self._cut = False
        self._error: ConnectionAbortedError | None = None

    # --- the outer transport's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake on this transport, whose protocol this object already is."""
        self._outer = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._timer = asyncio.get_running_loop().call_later(
            self._handshake_s, self._fail, "the handshake took too long"
        )
        first, self._first = self._first, b""
        if first:
            self.data_received(first)

    def data_received(self, data: bytes) -> None:
        """Bytes of the guest."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._up or self._handshake():
            self._pump()

    def eof_received(self) -> bool:
        """The guest's end of the stream, with or without close_notify before it."""
        self._incoming.write_eof()
        self._cut = True
        if not self._up:
            self._fail("the guest closed during the handshake")
        elif not self._closing:
            self._pump()
        # Stay open only for what the inner protocol has not read yet, or still has to say.
        return not self._closing and (self._read_paused or self._peer_done)

    def connection_lost(self, exc: Exception | None) -> None:
        """The outer transport is gone."""
        self._stop_timer()
        was_up, self._up, clean = self._up, False, self._closing or self._peer_done
        self._closing = True
        self._outer = None
        if was_up:
            cut = None if clean else ConnectionAbortedError(_CUT)
            self._inner.connection_lost(self._error or exc or cut)
        elif self._on_failed is not None:
            failed, self._on_failed = self._on_failed, None
            failed("the guest closed during the handshake")

    def pause_writing(self) -> None:
        """The outer buffer is full."""
        self._write_paused = True
        if self._up:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The outer buffer has room again."""
        self._write_paused = False
        if self._up:
            self._inner.resume_writing()

    # --- TLS

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()
            self._fail(f"the handshake failed: {(error.reason or 'TLS error').lower().replace('_', ' ')}")
            return False
        self._flush()
        self._stop_timer()
        self._up = True
        self._on_failed = None
        self._inner.connection_made(self)
        if self._write_paused:
            self._inner.pause_writing()
        return True

    def _pump(self) -> None:
        """Hand what can be decrypted to the inner protocol; what it writes meanwhile leaves as one piece."""
        if self._corked is not None:
            return
        tls, incoming = self._tls, self._incoming
        self._corked = []
        try:
            while not self._read_paused and not self._closing and not self._peer_done:
                chunk = tls.read(_RECORD)
                if not chunk:
                    self._peer_closed()
                    break
                self._inner.data_received(chunk)
                # Asking again with nothing there would cost an exception each time.
                if not incoming.pending and not tls.pending() and not self._cut:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._uncork()
            self._broken(error)
        finally:
            self._uncork()

    def _broken(self, error: ssl.SSLError) -> None:
        cut = isinstance(error, ssl.SSLEOFError)
        self._error = ConnectionAbortedError(_CUT if cut else f"TLS: {error.reason or 'broken'}")
        self._flush()
        self.abort()

    def _peer_closed(self) -> None:
        self._peer_done = True
        if not self._inner.eof_received():
            self.close()

    def _uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked and self._outer is not None and not self._outer.is_closing():
            self._seal(corked[0] if len(corked) == 1 else b"".join(corked))
        elif self._outgoing.pending:
            self._flush()

    def _seal(self, data: bytes | bytearray | memoryview) -> None:
        try:
            done = self._tls.write(data)
            if done < len(data):
                view = memoryview(data)
                while done < len(view):
                    done += self._tls.write(view[done : done + _RECORD])
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._outer is not None:
            self._outer.write(self._outgoing.read())

    def _fail(self, why: str) -> None:
        self._stop_timer()
        self._closing = True
        if self._outer is not None:
            self._outer.close()
        if self._on_failed is not None:
            failed, self._on_failed = self._on_failed, None
            failed(why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the inner protocol's transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; nothing happens after `close`."""
        if self._closing or not data:
            return
        if self._corked is None:
            self._seal(data)
        else:
            self._corked.append(data if isinstance(data, bytes) else bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As one write."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """No: TLS has no half-close that servers agree on."""
        return False

    def close(self) -> None:
        """Send what was written and close_notify, close the outer transport; the peer's own end is not awaited."""
        if self._closing:
            return
        corked, self._corked = self._corked, None
        if corked:
            self._seal(b"".join(corked))
        self._closing = True
        if self._outer is None:
            return
        if self._up:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass
            self._flush()
        self._stop_timer()
        self._outer.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._closing = True
        self._corked = None
        if self._outer is not None:
            self._outer.abort()

    def is_closing(self) -> bool:
        """True after `close`, `abort` or the loss of the connection."""
        return self._closing

    def pause_reading(self) -> None:
        """Deliver nothing more, and make the guest's side wait."""
        if not self._read_paused and not self._closing:
            self._read_paused = True
            if self._outer is not None and not self._cut:
                self._outer.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again, from the loop and not from within this call."""
        if self._read_paused:
            self._read_paused = False
            asyncio.get_running_loop().call_soon(self._resumed)

    def _resumed(self) -> None:
        if self._closing or self._read_paused or self._outer is None:
            return
        if not self._cut:
            self._outer.resume_reading()
        self._pump()

    def is_reading(self) -> bool:
        """False while paused or closing."""
        return not self._read_paused and not self._closing

    def get_write_buffer_size(self) -> int:
        """Bytes written but not yet taken by the outer transport."""
        held = sum(len(data) for data in self._corked) if self._corked else 0
        return held + (self._outer.get_write_buffer_size() if self._outer is not None else 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Passed to the outer transport, which does the buffering."""
        if self._outer is not None:
            self._outer.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The outer transport's."""
        return self._outer.get_write_buffer_limits() if self._outer is not None else (0, 0)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another inner protocol from here on."""
        self._inner = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The inner protocol."""
        return self._inner

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, `sslcontext`, `alpn` (the chosen protocol or None); anything else is the outer transport's."""
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._context
        if name == "alpn":
            return self._tls.selected_alpn_protocol() if self._up else None
        return self._outer.get_extra_info(name, default) if self._outer is not None else default
