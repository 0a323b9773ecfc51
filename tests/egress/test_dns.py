"""Synthetic DNS: what may be asked, what is answered, and that hostile queries get nowhere."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.egress.dns import Answer, Names, Qtype, Rcode

A, AAAA, PTR, TXT, SVCB, HTTPS = 1, 28, 12, 16, 64, 65
OPT = b"\0" + struct.pack("!HHIH", 41, 4096, 0, 0)


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def query(
    name: str | bytes, qtype: int = A, *, more: bytes = b"", counts: tuple[int, ...] | None = None, **fields: int
) -> bytes:
    raw = name if isinstance(name, bytes) else wire(name)
    flags, qclass = fields.get("flags", 0x0100), fields.get("qclass", 1)
    head = struct.pack("!6H", 0x1234, flags, *(counts or (1, 0, 0, int(bool(more)))))
    return head + raw + struct.pack("!HH", qtype, qclass) + more


def names(*allowed: str) -> Names:
    return Names(lambda name: name in allowed or name.endswith(".wild.example"))


def rcode(answer: Answer) -> int:
    return answer.message[3] & 15


def counts(answer: Answer) -> tuple[int, ...]:
    return struct.unpack("!4H", answer.message[4:12])


def test_an_allowed_name_gets_an_address_of_the_sandboxs_own() -> None:
    table = names("api.example.com")
    answer = table.answer(query("api.example.com"))
    assert (answer.name, answer.qtype, answer.allowed, answer.rcode) == ("api.example.com", A, True, Rcode.NOERROR)
    assert counts(answer) == (1, 1, 0, 0)
    assert answer.message[:2] == b"\x12\x34"
    assert answer.message.endswith(struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes([198, 18, 0, 1]))
    assert table.name_of("198.18.0.1") == "api.example.com"


def test_the_spelling_of_the_question_is_kept_and_its_name_is_canonical() -> None:
    table = names("api.example.com")
    first, again = table.answer(query("aPi.ExAmple.cOm")), table.answer(query("API.example.COM"))
    assert wire("aPi.ExAmple.cOm") in first.message
    assert first.name == again.name == "api.example.com"
    assert first.message[-4:] == again.message[-4:]


@pytest.mark.parametrize("qtype", [AAAA, HTTPS, SVCB, TXT, PTR, 2, 6, 15, 33, 257, 0, 65535])
def test_an_allowed_name_has_no_record_but_its_address(qtype: int) -> None:
    answer = names("api.example.com").answer(query("api.example.com", qtype))
    assert (answer.rcode, answer.allowed) == (Rcode.NOERROR, True)
    assert counts(answer) == (1, 0, 0, 0)


@pytest.mark.parametrize("qtype", [A, AAAA, TXT, HTTPS, 10])
def test_a_name_that_no_rule_speaks_of_does_not_exist(qtype: int) -> None:
    table = names("api.example.com")
    answer = table.answer(query("secret-data-in-a-label.evil.example", qtype))
    assert (answer.rcode, answer.allowed) == (Rcode.NXDOMAIN, False)
    assert counts(answer) == (1, 0, 0, 0)
    assert table.name_of("198.18.0.1") is None


@pytest.mark.parametrize("qtype", [Qtype.ANY, Qtype.AXFR, Qtype.IXFR, Qtype.MAILA, Qtype.MAILB, Qtype.OPT])
def test_transfers_and_any_are_refused(qtype: int) -> None:
    assert names("api.example.com").answer(query("api.example.com", qtype)).rcode == Rcode.REFUSED


@pytest.mark.parametrize("qclass", [0, 3, 4, 254, 255])
def test_only_the_internets_class_is_answered(qclass: int) -> None:
    assert names("api.example.com").answer(query("api.example.com", qclass=qclass)).rcode == Rcode.REFUSED


def test_edns_is_answered_with_an_opt_record_of_our_own_and_no_option_comes_back() -> None:
    subnet = struct.pack("!HH", 8, 7) + b"\0\1\x18\0\x0a\1\2"
    opt = b"\0" + struct.pack("!HHIH", 41, 4096, 0x8000, len(subnet)) + subnet
    answer = names("api.example.com").answer(query("api.example.com", more=opt))
    assert counts(answer) == (1, 1, 0, 1)
    assert answer.message.endswith(b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0))


def test_an_edns_version_that_we_do_not_speak_is_badvers() -> None:
    opt = b"\0" + struct.pack("!HHIH", 41, 4096, 1 << 16, 0)
    answer = names("api.example.com").answer(query("api.example.com", more=opt))
    assert answer.rcode == Rcode.BADVERS
    assert rcode(answer) == 0
    assert answer.message.endswith(b"\0" + struct.pack("!HHIH", 41, 1232, 1 << 24, 0))


@pytest.mark.parametrize(
    "message",
    [
        query("api.example.com")[:-1],
        query("api.example.com")[:20],
        query("api.example.com") + b"x",
        query("api.example.com", counts=(0, 0, 0, 0)),
        query("api.example.com", counts=(2, 0, 0, 0)),
        query("api.example.com", counts=(1, 1, 0, 0)),
        query("api.example.com", counts=(1, 0, 1, 0)),
        query("api.example.com", counts=(1, 0, 0, 1)),
        query("api.example.com", more=OPT + OPT, counts=(1, 0, 0, 2)),
        query("api.example.com", more=b"\1a" + OPT),
        query("api.example.com", more=b"\0" + struct.pack("!HHIH", 250, 255, 0, 0)),
        query("api.example.com", more=b"\0" + struct.pack("!HHIH", 41, 4096, 0, 9)),
        query("api.example.com", more=b"\0" + struct.pack("!HHIH", 41, 4096, 0, 3) + b"\0\1\0"),
        query("api.example.com", more=b"\0" + struct.pack("!HHIH", 41, 4096, 0, 5) + b"\0\1\0\x09\0"),
        query(b"\xc0\x0c"),
        query(b"\x03api\xc0\x0c"),
        query(b"\x41" + b"a" * 65 + b"\0"),
        query(b"\x80aa\0"),
        query((b"\x3f" + b"a" * 63) * 4 + b"\0"),
        query("api.example.com") + b"\0" * 2000,
    ],
)
def test_a_malformed_query_gets_formerr_and_nothing_of_its_bytes(message: bytes) -> None:
    answer = names("api.example.com").answer(message)
    assert (answer.rcode, answer.allowed, len(answer.message)) == (Rcode.FORMERR, False, 12)


def test_an_answer_or_a_stump_is_not_answered_at_all() -> None:
    table = names("api.example.com")
    assert table.answer(query("api.example.com", flags=0x8100)).message == b""
    assert table.answer(b"").message == b""
    assert table.answer(b"\0" * 11).message == b""


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_no_opcode_but_query_is_implemented(opcode: int) -> None:
    assert names("api.example.com").answer(query("api.example.com", flags=opcode << 11)).rcode == Rcode.NOTIMP


@pytest.mark.parametrize(
    "raw", [b"\0", b"\x03com\0", b"\x0fapi.example.com\0", b"\x03api\x07exa\0ple\x03com\0", "ⓐpi.example.com".encode()]
)
def test_a_name_that_is_no_host_name_does_not_exist(raw: bytes) -> None:
    raw = raw if raw.endswith(b"\0") else bytes([len(raw)]) + raw + b"\0"
    answer = Names(lambda _: True).answer(query(raw))
    assert (answer.rcode, answer.name) == (Rcode.NXDOMAIN, "")


def test_a_name_keeps_its_address_and_no_address_is_given_twice() -> None:
    table = names()
    first = [table.address_of(f"h{i}.wild.example") for i in range(1000)]
    assert len(set(first)) == 1000
    assert [table.address_of(f"h{i}.wild.example") for i in range(1000)] == first


def test_the_guests_own_network_is_never_given_out() -> None:
    table = Names(lambda _: True, most=200_000)
    given_out = {table.address_of(f"h{i}.wild.example") for i in range(131_000)}
    assert "198.19.254.255" in given_out
    assert not any(address and address.startswith("198.19.255.") for address in given_out)
    assert table.address_of("one-more.wild.example") is None


def test_a_full_table_serves_the_names_it_has_and_fails_new_ones() -> None:
    table = Names(lambda _: True, most=2)
    for host in ("a.example.com", "b.example.com"):
        assert table.answer(query(host)).rcode == Rcode.NOERROR
    assert table.answer(query("c.example.com")).rcode == Rcode.SERVFAIL
    assert table.answer(query("a.example.com")).rcode == Rcode.NOERROR


def test_a_narrowed_policy_is_asked_again_for_every_query() -> None:
    allowed = {"api.example.com"}
    table = Names(lambda name: name in allowed)
    assert table.answer(query("api.example.com")).rcode == Rcode.NOERROR
    allowed.clear()
    assert table.answer(query("api.example.com")).rcode == Rcode.NXDOMAIN
    assert table.name_of("198.18.0.1") == "api.example.com"


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=100), st.booleans())
def test_no_bytes_raise_and_every_answer_is_one(data: bytes, headed: bool) -> None:
    message = struct.pack("!6H", 1, 0, 1, 0, 0, len(data) % 2) + data if headed else data
    answer = Names(lambda _: True).answer(message)
    if answer.message:
        assert answer.message[:2] == message[:2]
        assert answer.message[2] & 0x80
        assert len(answer.message) <= 512


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 60), st.binary(max_size=4))
def test_no_damage_to_a_good_query_raises(at: int, put: bytes) -> None:
    good = query("api.example.com", more=OPT)
    names("api.example.com").answer(good[:at] + put + good[at + len(put) :])
