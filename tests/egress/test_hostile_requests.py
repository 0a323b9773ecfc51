"""Hostile requests: none reaches a server in a dangerous form. Ids carry the numbers of the project's threat list."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.egress.rig import HOST, SECRET, WITH_SECRET, rig
from tests.servers.upstream import Received

H = b"Host: api.test.example\r\n"


def get(path: bytes = b"/api/x", fields: bytes = b"", host: bytes = H, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + host + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /api/x HTTP/1.1\r\n" + H + fields + b"\r\n" + body


CL3 = b"Content-Length: 3\r\n"
TE = b"Transfer-Encoding: chunked\r\n"

REFUSED: dict[str, bytes] = {
    "12-host-is-another": get(host=b"Host: evil.example\r\n"),
    "21-absolute-form-other-host": get(b"https://evil.example/api/x"),
    "21-absolute-form-same-host": get(b"https://api.test.example/api/x"),
    "21-absolute-form-http-in-tls": get(b"http://api.test.example/api/x"),
    "20-connect": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "20-connect-same-host": b"CONNECT api.test.example:443 HTTP/1.1\r\nHost: api.test.example:443\r\n\r\n",
    "22-host-missing": get(host=b""),
    "22-host-twice": get(host=H + H),
    "22-host-twice-other": get(host=H + b"Host: evil.example\r\n"),
    "22-host-userinfo": get(host=b"Host: api.test.example@evil.example\r\n"),
    "22-host-port-userinfo": get(host=b"Host: api.test.example:443@evil.example\r\n"),
    "22-host-other-port": get(host=b"Host: api.test.example:8443\r\n"),
    "22-host-empty": get(host=b"Host: \r\n"),
    "22-host-tab-inside": get(host=b"Host: api.test.example\tx\r\n"),
    "22-host-long": get(host=b"Host: " + b"a" * 300 + b"\r\n"),
    "22-host-space-before-colon": get(host=b"Host : api.test.example\r\n"),
    "24-host-not-ascii": get(host=b"Host: \xe2\x93\x96ithub.com\r\n"),
    "5-host-ip-literal": get(host=b"Host: 127.0.0.1\r\n"),
    "6-host-number": get(host=b"Host: 2130706433\r\n"),
    "7-host-ipv6": get(host=b"Host: [::1]\r\n"),
    "27-cl-and-te": post(CL3 + TE, b"0\r\n\r\n"),
    "28-te-and-cl": post(TE + CL3, b"0\r\n\r\n"),
    "29-te-vertical-tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "29-te-xchunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "29-te-list": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "29-te-space-before-colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "29-te-twice": post(TE + TE, b"0\r\n\r\n"),
    "29-te-identity": post(b"Transfer-Encoding: identity\r\n"),
    "30-cl-twice": post(CL3 + CL3, b"abc"),
    "30-cl-list": post(b"Content-Length: 3, 3\r\n", b"abc"),
    "30-cl-signed": post(b"Content-Length: +3\r\n", b"abc"),
    "30-cl-negative": post(b"Content-Length: -3\r\n", b"abc"),
    "30-cl-hex": post(b"Content-Length: 0x3\r\n", b"abc"),
    "30-cl-huge": post(b"Content-Length: 99999999999999999999\r\n", b"abc"),
    "31-obs-fold": get(fields=b"X-A: b\r\n c: d\r\n"),
    "31-obs-fold-first": b"GET /api/x HTTP/1.1\r\n Host: api.test.example\r\n\r\n",
    "32-bare-lf": b"GET /api/x HTTP/1.1\nHost: api.test.example\n\n",
    "32-bare-cr": get(fields=b"X-A: b\rX-B: c\r\n"),
    "32-nul-in-value": get(fields=b"X-A: b\0c\r\n"),
    "32-nul-in-name": get(fields=b"X-\0A: b\r\n"),
    "32-control-in-value": get(fields=b"X-A: b\x7fc\r\n"),
    "33-chunk-size-overflow": post(TE, b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    "33-chunk-bad-end": post(TE, b"2\r\nAAXX0\r\n\r\n"),
    "33-chunk-bare-lf": post(TE, b"3\nabc\n0\n\n"),
    "33-chunk-extension-lf": post(TE, b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "33-chunk-signed": post(TE, b"+3\r\nabc\r\n0\r\n\r\n"),
    "35-get-with-body": get(fields=CL3) + b"abc",
    "35-get-with-chunked-body": get(fields=TE) + b"3\r\nabc\r\n0\r\n\r\n",
    "35-expect-unknown": post(b"Expect: the-worst\r\n" + CL3, b"abc"),
    "37-http-0.9": b"GET /api/x\r\n\r\n",
    "37-http-1.0": b"GET /api/x HTTP/1.0\r\n" + H + b"\r\n",
    "37-http-1.9": b"GET /api/x HTTP/1.9\r\n" + H + b"\r\n",
    "37-http-2.0": b"GET /api/x HTTP/2.0\r\n" + H + b"\r\n",
    "37-h2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "38-upgrade-h2c": get(
        fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    ),
    "38-upgrade-without-connection": get(fields=b"Upgrade: h2c\r\n"),
    "39-websocket": get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    "45-method-in-query": get(b"/api/x?_method=DELETE"),
    "45-method-in-query-encoded": get(b"/api/x?a=1&%5fmethod=DELETE"),
    "46-trace": get(method=b"TRACE"),
    "46-track": get(method=b"TRACK"),
    "46-lower-case-method": get(method=b"get"),
    "46-unknown-method": get(method=b"BREW"),
    "46-propfind": get(method=b"PROPFIND"),
    "36-leading-crlf": b"\r\n" + get(),
    "43-dot-dot": get(b"/api/../secret"),
    "43-dot-dot-encoded": get(b"/api/%2e%2e/secret"),
    "43-dot-encoded": get(b"/api/%2e/x"),
    "43-dot": get(b"/api/./x"),
    "43-dot-semicolon": get(b"/api/..;/secret"),
    "43-parameter": get(b"/api/x;a=b"),
    "43-double-slash": get(b"/api//x"),
    "43-slash-encoded": get(b"/api/%2f..%2fsecret"),
    "43-backslash": get(b"/api/\\..\\secret"),
    "43-backslash-encoded": get(b"/api/%5c..%5csecret"),
    "43-nul-encoded": get(b"/api/x%00.png"),
    "43-u-encoded": get(b"/api/%u002e%u002e/x"),
    "43-overlong-utf8": get(b"/api/%c0%ae%c0%ae/x"),
    "43-double-encoded": get(b"/api/%252e%252e/x"),
    "43-fragment": get(b"/api/x#y"),
    "43-raw-8-bit": get(b"/api/\xff"),
    "43-space": b"GET /api/x y HTTP/1.1\r\n" + H + b"\r\n",
    "43-star": get(b"*", method=b"OPTIONS"),
    "64-header-70k": get(fields=b"X-A: " + b"a" * 70_000 + b"\r\n"),
    "64-headers-10k": get(fields=b"".join(b"X-%d: a\r\n" % i for i in range(10_000))),
    "64-url-1m": get(b"/api/" + b"a" * 1_000_000),
    "0-connection-names-host": get(fields=b"Connection: Host, Authorization\r\nAuthorization: x\r\n"),
    "0-denied-path": get(b"/api/private/x"),
    "0-unknown-path": get(b"/other"),
    "0-garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "0-authorization-twice": get(fields=b"Authorization: a\r\nAuthorization: b\r\n"),
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_a_hostile_request_reaches_no_server_and_is_recorded(request_bytes: bytes, tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(request_bytes, HOST)
        assert r.server.connections == 0
        assert r.server.requests == []
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 50")), answer
        assert b"connection: close" in answer
        assert [e.kind for e in r.audit.events if e.strict] == ["egress.denied"]
        assert r.audit.events[0].decision == "deny"
        assert r.secrets.asked == []


def absent(*names: str) -> Callable[[Received], None]:
    def check(received: Received) -> None:
        for name in names:
            assert name not in received.headers

    return check


def framed_once(received: Received) -> None:
    assert received.headers.get("content-length", []) + received.headers.get("transfer-encoding", []) == ["chunked"]
    assert received.body == b"abc"


SANITISED: dict[str, tuple[bytes, Callable[[Received], None]]] = {
    "45-method-override": (
        get(fields=b"X-HTTP-Method-Override: DELETE\r\nX-Method-Override: PUT\r\nX-HTTP-Method: PUT\r\n"),
        absent("x-http-method-override", "x-method-override", "x-http-method"),
    ),
    "45-method-override-underscore": (get(fields=b"X_HTTP_Method: PUT\r\n"), absent("x_http_method")),
    "48-original-url": (
        get(fields=b"X-Original-URL: /secret\r\nX-Rewrite-URL: /s\r\nX-Forwarded-Host: evil\r\nForwarded: host=x\r\n"),
        absent("x-original-url", "x-rewrite-url", "x-forwarded-host", "forwarded"),
    ),
    "48-via-and-proxy": (
        get(fields=b"Via: 1.1 x\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nTE: trailers\r\nKeep-Alive: 5\r\n"),
        absent("via", "proxy-authorization", "proxy-connection", "te", "keep-alive", "connection"),
    ),
    "29-underscored-framing": (
        get(fields=b"Transfer_Encoding: chunked\r\nContent_Length: 5\r\n"),
        absent("transfer_encoding", "content_length"),
    ),
    "34-trailers": (post(TE, b"3\r\nabc\r\n0\r\nHost: evil\r\nAuthorization: x\r\n\r\n"), framed_once),
    "33-chunk-extension": (post(TE, b"3;a=b\r\nabc\r\n0\r\n\r\n"), framed_once),
    "68-one-byte-chunks": (post(TE, b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"), framed_once),
    "23-host-case-and-dot": (get(host=b"Host: API.Test.Example.\r\n"), absent("upgrade")),
    "60-credential-of-the-guests-own": (get(fields=b"Authorization: Bearer mine\r\n"), absent("upgrade")),
    "57-range": (
        get(fields=b"Range: bytes=0-0\r\nIf-Range: x\r\nAccept-Encoding: br\r\n"),
        absent("range", "if-range"),
    ),
}


@pytest.mark.parametrize(("request_bytes", "check"), SANITISED.values(), ids=SANITISED.keys())
async def test_an_odd_request_is_sent_on_only_in_our_own_words(
    request_bytes: bytes, check: Callable[[Received], None], tmp_path: Path
) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(request_bytes, HOST)
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        [received] = r.server.requests
        check(received)
        assert received.one("host") == HOST
        assert received.one("authorization") == "Bearer " + SECRET.decode()
        assert received.one("accept-encoding") == "identity"


async def test_36_a_pipelined_denied_request_is_denied_after_the_allowed_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        reader, writer = await r.guest.connect(HOST)
        writer.write(get() + get(b"/secret"))
        everything = await reader.read()
        assert everything.count(b"HTTP/1.1 ") == 2
        assert everything.startswith(b"HTTP/1.1 200 OK")
        assert b"HTTP/1.1 403 Forbidden" in everything
        assert [x.path for x in r.server.requests] == ["/api/x"]


async def test_18_a_second_request_for_another_host_on_one_connection_is_misdirected(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        reader, writer = await r.guest.connect(HOST)
        writer.write(get() + get(host=b"Host: plain.test.example\r\n"))
        everything = await reader.read()
        assert b"HTTP/1.1 421 " in everything
        assert len(r.server.requests) == 1
        assert r.plain.connections == 0


async def test_a_denial_says_what_to_do_and_nothing_about_addresses_rules_or_secrets(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        answer = await r.guest.raw(get(b"/api/private/x"), HOST)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden")
        assert b'"rule": "api"' in answer
        assert b"do not retry by other means" in answer
        for word in (b"127.0.0.1", b"198.18", b"token", b"private/**", SECRET):
            assert word not in answer
        assert r.gateway.denied() == [("api", HOST, 1)]
