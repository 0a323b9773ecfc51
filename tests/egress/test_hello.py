"""The TLS hello: read from any cut of its bytes, bounded, and refused when two readers could see two names."""

import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.egress.tls.hello import Alert, BadHello, Hello, HelloParser, alert_bytes, is_tls


def real(name: str | None = "api.example.com", alpn: list[str] | None = None) -> bytes:
    """What OpenSSL's client says first."""
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(alpn)
    if name is None:
        context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, data)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def message(extensions: bytes, version: int = 0x0303) -> bytes:
    body = struct.pack("!H", version) + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    return b"\1" + vector(3, body + vector(2, extensions))


def records(data: bytes, size: int = 1 << 14) -> bytes:
    return b"".join(b"\x16\x03\x01" + vector(2, data[at : at + size]) for at in range(0, len(data), size))


def parse(data: bytes) -> Hello | None:
    return HelloParser().feed(data)


def refused(data: bytes) -> Alert:
    with pytest.raises(BadHello) as caught:
        parse(data)
    return caught.value.alert


def test_a_real_clients_hello_is_read() -> None:
    assert parse(real(alpn=["h2", "http/1.1"])) == Hello("api.example.com", ("h2", "http/1.1"), False, True)


def test_a_hello_without_a_name_has_none() -> None:
    found = parse(real(None))
    assert found is not None
    assert found.sni is None


@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
def test_segments_of_any_size_give_the_same_hello(size: int) -> None:
    data, parser = real(), HelloParser()
    answers = [parser.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert answers[:-1] == [None] * (len(answers) - 1)
    assert answers[-1] == parse(data)
    assert bytes(parser.buffered) == data


@pytest.mark.parametrize("size", [10, 100, 200])
def test_a_hello_split_over_records_is_read(size: int) -> None:
    assert parse(records(real()[5:], size)) == parse(real())


def test_a_hello_of_more_than_16_kib_is_read() -> None:
    big = message(server_name(b"api.example.com") + extension(21, bytes(40_000)))
    assert parse(records(big)) == Hello("api.example.com", (), False, False)


def test_an_encrypted_hello_is_noted() -> None:
    found = parse(records(message(server_name(b"api.example.com") + extension(0xFE0D, b"x"))))
    assert found is not None
    assert found.ech


def test_a_name_comes_out_canonical() -> None:
    found = parse(records(message(server_name(b"API.Example.COM"))))
    assert found is not None
    assert found.sni == "api.example.com"


@pytest.mark.parametrize(
    "name", [b"10.0.0.1", b"127.1", b"::1", b"", b"localhost", b"a\0.example.com", b"\xff.example.com", b"a" * 300]
)
def test_a_name_that_is_no_host_name_is_refused(name: bytes) -> None:
    assert refused(records(message(server_name(name)))) is Alert.UNRECOGNIZED_NAME


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Alert.UNEXPECTED_MESSAGE),
        (b"SSH-2.0-x\r\n", Alert.UNEXPECTED_MESSAGE),
        (b"\x80\x2e\x01\x03\x01", Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x02\x00\x00\x05hello", Alert.UNEXPECTED_MESSAGE),
        (b"\x17\x03\x03\x00\x05hello", Alert.UNEXPECTED_MESSAGE),
        (records(b"\2" + message(b"")[1:]), Alert.UNEXPECTED_MESSAGE),
        (records(message(b"") + b"more"), Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x01\x00\x00", Alert.RECORD_OVERFLOW),
        (b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW),
        (records(b"\1\xff\xff\xff" + bytes(20)), Alert.RECORD_OVERFLOW),
        (records(message(extension(21, bytes(500))), 4), Alert.RECORD_OVERFLOW),
        (records(message(server_name(b"a.example.com") * 2)), Alert.DECODE_ERROR),
        (
            records(message(extension(0, vector(2, b"\0" + vector(2, b"a.b") + b"\0" + vector(2, b"c.d"))))),
            Alert.DECODE_ERROR,
        ),
        (records(message(server_name(b"a.example.com") + b"\0")), Alert.DECODE_ERROR),
        (records(message(extension(0, b"\0\xff"))), Alert.DECODE_ERROR),
        (records(message(server_name(b"a.example.com", kind=1))), Alert.UNRECOGNIZED_NAME),
        (records(message(server_name(b"a.example.com"), version=0x0302)), Alert.PROTOCOL_VERSION),
        (records(message(extension(43, vector(1, b"\3\2")))), Alert.PROTOCOL_VERSION),
    ],
)
def test_what_is_no_hello_that_we_take_is_refused_with_an_alert(data: bytes, alert: Alert) -> None:
    assert refused(data) is alert


def test_a_hello_that_never_ends_is_bounded() -> None:
    parser = HelloParser()
    endless = iter(lambda: records(b"\1\0\xff\xff" + bytes(2000)), None)
    with pytest.raises(BadHello):
        any(parser.feed(next(endless)) for _ in range(100))
    assert len(parser.buffered) < 200_000


def test_an_alert_is_a_record_that_a_client_understands() -> None:
    incoming = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="api.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(alert_bytes(Alert.ACCESS_DENIED))
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        client.do_handshake()


def test_the_first_byte_tells_tls_from_anything_else() -> None:
    assert is_tls(b"\x16")
    assert is_tls(b"\x16\x03")
    assert not is_tls(b"G")
    assert not is_tls(b"\x16\x02")


REAL = real()


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 300), st.binary(max_size=6), st.integers(1, 600))
def test_no_damage_raises_anything_but_a_bad_hello(at: int, put: bytes, size: int) -> None:
    data, parser = REAL[:at] + put + REAL[at + len(put) :], HelloParser()
    try:
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size])
    except BadHello as bad:
        assert isinstance(bad.alert, Alert)
