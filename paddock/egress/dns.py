"""Synthetic DNS: names that the policy speaks of get an address of the sandbox's own; no query ever leaves the fence.

Wire format: RFC 1035, EDNS: RFC 6891. Whatever is malformed gets FORMERR, or no answer when it is no query at all.
"""

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from paddock.policy.hosts import canonical

MAX_QUERY = 1232
MAX_NAMES = 16_384
TTL_S = 60
_POOL = ipaddress.IPv4Network("198.18.0.0/15")
# The guest keeps addresses of its own here (its resolver, its catch-all route).
_KEPT = ipaddress.IPv4Network("198.19.255.0/24")
_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HH")
_OPT = struct.Struct("!HHIH")
_QR, _OPCODE, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_IN = 1
_EDNS_SIZE = 1232


class Rcode(IntEnum):
    """Answers of RFC 1035 and 6891 that we give."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Qtype(IntEnum):
    """Record types that are not simply absent."""

    A = 1
    OPT = 41
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255


_REFUSED_TYPES = frozenset({Qtype.OPT, Qtype.IXFR, Qtype.AXFR, Qtype.MAILB, Qtype.MAILA, Qtype.ANY})


@dataclass(frozen=True, slots=True)
class Answer:
    """The message to send (empty: send none), and what was asked: the canonical name, "" when it is no host name."""

    message: bytes
    name: str
    qtype: int
    allowed: bool
    rcode: int


class Malformed(Exception):
    """A query that breaks the wire format; the message says how."""


@dataclass(frozen=True, slots=True)
class _Question:
    labels: tuple[bytes, ...]
    qtype: int
    qclass: int
    raw: bytes
    edns: int | None


class Names:
    """The names and addresses of one sandbox; an address, once given, is that name's for good and never another's."""

    def __init__(self, allowed: Callable[[str], bool], *, most: int = MAX_NAMES) -> None:
        """`allowed` says whether the policy speaks of a canonical name; it may change its mind from query to query."""
        self.allowed = allowed
        self._most = most
        self._by_name: dict[str, str] = {}
        self._by_address: dict[str, str] = {}
        self._next = int(_POOL.network_address) + 1

    def name_of(self, address: str) -> str | None:
        """The name that this address was given to."""
        return self._by_address.get(address)

    def address_of(self, name: str) -> str | None:
        """The address of a canonical name, given on first use; None when the table is full."""
        address = self._by_name.get(name)
        if address is not None or len(self._by_name) >= self._most:
            return address
        if ipaddress.IPv4Address(self._next) in _KEPT:
            return None
        address = str(ipaddress.IPv4Address(self._next))
        self._next += 1
        self._by_name[name] = address
        self._by_address[address] = name
        return address

    def answer(self, query: bytes) -> Answer:
        """The whole answer to one query of the guest. Never raises, asks nobody."""
        if len(query) < _HEADER.size:
            return Answer(b"", "", 0, False, Rcode.FORMERR)
        ident, flags, *counts = _HEADER.unpack_from(query)
        if flags & _QR:
            # Answering an answer could make two servers talk for ever.
            return Answer(b"", "", 0, False, Rcode.FORMERR)
        if flags & _OPCODE:
            return _reply(ident, flags, Rcode.NOTIMP)
        try:
            question = _read(query, counts)
        except Malformed:
            return _reply(ident, flags, Rcode.FORMERR)
        return self._decide(ident, flags, question)

    def _decide(self, ident: int, flags: int, question: _Question) -> Answer:
        name = _host_name(question.labels)
        if question.edns is not None and question.edns > 0:
            return _reply(ident, flags, Rcode.BADVERS, question, name)
        if question.qclass != _IN or question.qtype in _REFUSED_TYPES:
            return _reply(ident, flags, Rcode.REFUSED, question, name)
        if not name or not self.allowed(name):
            return _reply(ident, flags, Rcode.NXDOMAIN, question, name)
        if question.qtype != Qtype.A:
            # AAAA: the fence has no IPv6 inside. HTTPS and SVCB: they would carry ECH keys and addresses of their own.
            return _reply(ident, flags, Rcode.NOERROR, question, name, allowed=True)
        address = self.address_of(name)
        if address is None:
            return _reply(ident, flags, Rcode.SERVFAIL, question, name, allowed=True)
        return _reply(ident, flags, Rcode.NOERROR, question, name, allowed=True, address=address)


def _reply(
    ident: int,
    flags: int,
    rcode: Rcode,
    question: _Question | None = None,
    name: str = "",
    *,
    allowed: bool = False,
    address: str | None = None,
) -> Answer:
    authoritative = _AA if rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) else 0
    head = _QR | (flags & (_OPCODE | _RD | _CD)) | _RA | authoritative | (rcode & 15)
    if question is None:
        return Answer(_HEADER.pack(ident, head, 0, 0, 0, 0), "", 0, False, rcode)
    body = question.raw
    if address is not None:
        # The answer's name is a pointer to the question's, whose spelling (0x20) the client checks.
        body += b"\xc0\x0c" + struct.pack("!HHIH", Qtype.A, _IN, TTL_S, 4) + ipaddress.IPv4Address(address).packed
    if question.edns is not None:
        body += b"\0" + _OPT.pack(Qtype.OPT, _EDNS_SIZE, (rcode >> 4) << 24, 0)[:10]
    counts = (1, int(address is not None), 0, int(question.edns is not None))
    return Answer(_HEADER.pack(ident, head, *counts) + body, name, question.qtype, allowed, rcode)


def _read(query: bytes, counts: list[int]) -> _Question:
    questions, answers, authorities, additional = counts
    if len(query) > MAX_QUERY:
        raise Malformed("too long")
    if questions != 1 or answers or authorities or additional > 1:
        raise Malformed("a query has one question and at most an OPT record")
    labels, at = _name(query, _HEADER.size)
    if at + _FIXED.size > len(query):
        raise Malformed("the question is cut off")
    qtype, qclass = _FIXED.unpack_from(query, at)
    at += _FIXED.size
    raw = query[_HEADER.size : at]
    edns = None
    if additional:
        edns, at = _opt(query, at)
    if at != len(query):
        raise Malformed("bytes behind the message")
    return _Question(labels, qtype, qclass, raw, edns)


def _name(query: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    labels: list[bytes] = []
    start = at
    while True:
        if at >= len(query):
            raise Malformed("the name is cut off")
        size = query[at]
        at += 1
        if size == 0:
            break
        # 64 and more: compression pointers, which a question has nothing to point at, or unassigned.
        if size > 63 or at + size > len(query):
            raise Malformed("a label is too long")
        labels.append(query[at : at + size])
        at += size
        if at - start > 254:
            raise Malformed("the name is longer than 255 bytes")
    return tuple(labels), at


def _opt(query: bytes, at: int) -> tuple[int, int]:
    """(EDNS version, end) of an OPT record; options (client subnet …) are checked for length and dropped."""
    if at + 11 > len(query) or query[at] != 0:
        raise Malformed("the additional record is no OPT")
    rtype, _, ttl, size = _OPT.unpack_from(query, at + 1)
    at += 11
    end = at + size
    if rtype != Qtype.OPT or end > len(query):
        raise Malformed("the additional record is no OPT")
    while at < end:
        if at + 4 > end:
            raise Malformed("an option is cut off")
        at += 4 + _FIXED.unpack_from(query, at)[1]
    if at != end:
        raise Malformed("an option is cut off")
    return (ttl >> 16) & 0xFF, end


def _host_name(labels: tuple[bytes, ...]) -> str:
    # A dot inside a label would make one name look like another.
    if any(b"." in label for label in labels):
        return ""
    try:
        return canonical(b".".join(labels).decode("ascii")) or ""
    except UnicodeDecodeError:
        return ""
