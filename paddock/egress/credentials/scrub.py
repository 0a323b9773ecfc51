"""Takes a secret, and the usual encodings of it, out of what a server answers.

It cannot catch arbitrary transforms (reversed, one character per answer): narrow rules and short-lived secrets must.
"""

import base64
import html
import json
import zlib
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote_from_bytes

import re2

from paddock.egress.http.message import Header, UpstreamBroken

MARKER: Final = b"[scrubbed]"
SHORTEST_SECRET_BYTES: Final = 6  # shorter values would match everywhere, and their encodings by chance
_EVERY: Final = 4
_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_MAX_DECODED_BYTES: Final = 1 << 30
_FREE_DECODED_BYTES: Final = 1 << 20
_MAX_RATIO: Final = 100
_STEP_BYTES: Final = 256 << 10
# Fields that describe the server's bytes; what the guest gets are others.
_ABOUT_OTHER_BYTES: Final = frozenset(
    (b"content-encoding", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest")
)


def _base64_cores(value: bytes) -> Iterable[tuple[bytes, bool, bool]]:
    """The characters that any base64 text around `value` must hold, for each of the 3 places it can start at.

    The flags say whether the character before, and the one behind, also carries bits of `value`.
    """
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + value + b"\0\0")
        end_bits = (shift + len(value)) * 8
        core = text[-(-shift * 8 // 6) : end_bits // 6]
        for spelled in (core, core.replace(b"+", b"-").replace(b"/", b"_"), quote_from_bytes(core, safe="").encode()):
            yield spelled, shift * 8 % 6 != 0, end_bits % 6 != 0


def needles(value: bytes) -> tuple[bytes, ...]:
    """Everything that stands for `value`, longest first, without those that another one begins."""
    text = value.decode("latin-1")
    full = "".join(f"%{byte:02x}" for byte in value).encode()
    found = {value, value.hex().encode(), value.hex().upper().encode(), full, full.upper()}
    found |= {core for core, _, _ in _base64_cores(value)}
    for safe in ("", "/", "~", "-._~!$&'()*+,;=:@/?"):
        quoted = quote_from_bytes(value, safe=safe).encode()
        found |= {quoted, _lower_escapes(quoted), quoted.replace(b"%20", b"+")}
    for ascii_only in (True, False):
        for spelled in (text, value.decode("utf-8", "replace")):
            escaped = json.dumps(spelled, ensure_ascii=ascii_only)[1:-1].encode("utf-8")
            found |= {escaped, escaped.replace(b"/", b"\\/")}
    found |= {html.escape(text).encode("latin-1"), html.escape(text, quote=False).encode("latin-1")}
    found = {needle for needle in found if len(needle) >= _EVERY}
    kept = [needle for needle in found if not any(other != needle and needle.startswith(other) for other in found)]
    return tuple(sorted(kept, key=lambda needle: (-len(needle), needle)))


def _lower_escapes(quoted: bytes) -> bytes:
    parts = quoted.split(b"%")
    return b"%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


class Needles:
    """Compiled needles of some secrets; its repr and pickle hold none of them."""

    __slots__ = ("_all", "_beginnings", "_edges", "_names", "_pattern", "_starts")

    def __init__(self, values: Iterable[bytes]) -> None:
        values = tuple(values)
        everything = {needle for value in values for needle in needles(value)}
        self._all = tuple(sorted(everything, key=lambda needle: (-len(needle), needle)))
        self._edges = {core: (before, behind) for value in values for core, before, behind in _base64_cores(value)}
        alternatives = b"|".join(re2.escape(needle) for needle in self._all)
        options = re2.Options()
        options.max_mem = 64 << 20
        options.log_errors = False  # an error would print the pattern
        options.encoding = re2.Options.Encoding.LATIN1
        self._pattern = re2.compile(alternatives, options)
        options.case_sensitive = False
        self._names = re2.compile(alternatives, options)  # a server may change the case of field names
        self._starts = tuple((needle, needle[:_EVERY]) for needle in self._all)
        self._beginnings = frozenset(needle[:size] for needle in self._all for size in range(1, _EVERY))

    def __repr__(self) -> str:
        return f"<Needles {len(self._all)}>"

    def __reduce__(self) -> str:
        raise TypeError("needles are never copied out of the process")

    def replace(self, data: bytes) -> tuple[bytes, int]:
        """`data` with every needle replaced by the marker, and how many there were."""
        if self._pattern.search(data) is None:
            return data, 0
        out: list[bytes] = []
        at = count = 0
        for match in self._pattern.finditer(data):
            start, end = match.span()
            before, behind = self._edges.get(match.group(), (False, False))
            if before and start > at and data[start - 1] in _BASE64:
                start -= 1
            if behind and end < len(data) and data[end] in _BASE64:
                end += 1
            out += (data[at : max(at, start)], MARKER)
            at = end
            count += 1
        out.append(data[at:])
        return b"".join(out), count

    def names(self, name: bytes) -> bool:
        """True when the text holds a needle in any case."""
        return self._names.search(name) is not None

    def pending(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the beginning of a needle that goes on in later bytes."""
        longest = 0
        size = len(data)
        for needle, start in self._starts:
            at = data.find(start, max(0, size - len(needle) + 1))
            while at >= 0:
                if needle.startswith(data[at:]):
                    longest = max(longest, size - at)
                    break
                at = data.find(start, at + 1)
        for short in range(min(_EVERY - 1, size), longest, -1):
            if data[-short:] in self._beginnings:
                return short
        return longest


class Scrubber:
    """Scrubs one answer; bytes that could be the start of a secret wait for the next ones, all others go on at once."""

    __slots__ = ("_carry", "_inflate", "_needles", "_raw", "_total", "findings")

    def __init__(self, needles_: Needles) -> None:
        self._needles = needles_
        self._carry = b""
        self._inflate: _Inflate | None = None
        self.findings = 0

    def headers(self, headers: Iterable[Header], encoding: bytes) -> list[Header]:
        """Scrubbed fields; sets up decoding for `encoding`, or raises UpstreamBroken when it can't be looked into."""
        if encoding in (b"gzip", b"x-gzip", b"deflate"):
            self._inflate = _Inflate(encoding)
        elif encoding not in (b"", b"identity"):
            raise UpstreamBroken("the answer is encoded in a way that can't be looked into")
        fields = [header for header in headers if header[0].lower() not in _ABOUT_OTHER_BYTES]
        # One search over all of them; nearly always it finds nothing.
        if not self._needles.names(b"\n".join(part for header in fields for part in header)):
            return fields
        out: list[Header] = []
        for name, value in fields:
            if self._needles.names(name):
                self.findings += 1
                continue
            value, count = self._needles.replace(value)
            self.findings += count
            out.append((name, value))
        return out

    def body(self, data: bytes) -> bytes:
        """What may go on of the body so far."""
        if self._inflate is None:
            return self._window(data)
        return b"".join(self._window(part) for part in self._inflate.feed(data))

    def end(self) -> bytes:
        """The rest of the body."""
        if self._inflate is not None:
            self._inflate.finish()
        rest, self._carry = self._carry, b""
        return rest

    def _window(self, data: bytes) -> bytes:
        clean, count = self._needles.replace(self._carry + data if self._carry else data)
        self.findings += count
        waiting = self._needles.pending(clean)
        if not waiting:
            self._carry = b""
            return clean
        self._carry = clean[-waiting:]
        return clean[:-waiting]


class _Inflate:
    """gzip or deflate with caps on size and ratio."""

    __slots__ = ("_encoding", "_in", "_out", "_z")

    def __init__(self, encoding: bytes) -> None:
        self._encoding = encoding
        self._z: zlib._Decompress | None = None
        self._in = self._out = 0

    def feed(self, data: bytes) -> Iterable[bytes]:
        if self._z is None:
            # "deflate" is zlib by the standard and raw by custom: the first byte tells.
            raw = self._encoding == b"deflate" and data[:1] and (data[0] & 0x0F) != 8
            self._z = zlib.decompressobj(-15 if raw else 47)
        self._in += len(data)
        z = self._z
        while data:
            if z.eof:
                raise UpstreamBroken("bytes after the end of the encoded answer")
            try:
                part = z.decompress(data, _STEP_BYTES)
            except zlib.error:
                raise UpstreamBroken("the answer's encoding is broken") from None
            self._out += len(part)
            allowed = max(_FREE_DECODED_BYTES, self._in * _MAX_RATIO)
            if self._out > min(allowed, _MAX_DECODED_BYTES):
                raise UpstreamBroken("the answer grows too much when decoded")
            data = z.unconsumed_tail or (z.unused_data if z.eof else b"")
            yield part
            while not data and not z.eof and len(part) == _STEP_BYTES:
                part = z.decompress(b"", _STEP_BYTES)  # output that zlib still holds
                self._out += len(part)
                if self._out > min(allowed, _MAX_DECODED_BYTES):
                    raise UpstreamBroken("the answer grows too much when decoded")
                yield part

    def finish(self) -> None:
        if self._z is not None and not self._z.eof:
            raise UpstreamBroken("the encoded answer ended too early")
