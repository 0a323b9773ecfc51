"""The HTTP cores without sockets: whatever the bytes and however they are cut, only whole, plain messages come out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.egress.http.answer import ResponseEvent, ResponseParser
from paddock.egress.http.checks import split_target
from paddock.egress.http.message import END, Framing, Refused, Request, Response, UpstreamBroken
from paddock.egress.http.parse import RequestEvent, RequestParser
from paddock.egress.http.wire import chunk, request_head, response_head

GOOD = (
    b"POST /api/a?b=c HTTP/1.1\r\nHost: api.test.example\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    b"GET /api/z HTTP/1.1\r\nHost: api.test.example\r\n\r\n"
)
PIECES = st.lists(
    st.sampled_from(
        [
            *(b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"Host: a.example\r\n", b"\r\n", b"\n", b"\r", b"\0"),
            *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n"),
            *(
                b" folded\r\n",
                b"X: y\r\n",
                b"Connection: close\r\n",
                b"Upgrade: h2c\r\n",
                b"HTTP/1.1 200 OK\r\n",
                b";a=b",
            ),
            *(b"Expect: 100-continue\r\n", b"X-\xff: \xff\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 304 N\r\n"),
        ]
    )
    | st.binary(max_size=8),
    max_size=24,
).map(b"".join)


def requests(data: bytes, cuts: list[int]) -> tuple[list[RequestEvent], Refused | None]:
    parser = RequestParser()
    at = 0
    for cut in sorted({c % (len(data) + 1) for c in cuts} | {len(data)}):
        parser.feed(data[at:cut])
        at = cut
    return list(parser.events), parser.error


def joined(events: list[RequestEvent]) -> list[object]:
    out: list[object] = []
    for event in events:
        if isinstance(event, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += event
        else:
            out.append(event)
    return out


@given(st.lists(st.integers(0, 400), max_size=20))
def test_cuts_make_no_difference_to_good_requests(cuts: list[int]) -> None:
    events, error = requests(GOOD, cuts)
    assert error is None
    first, body, end, second, end_too = joined(events)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.method, first.target, first.framing) == ("POST", b"/api/a?b=c", Framing.CHUNKED)
    assert (body, end, end_too) == (b"abcde", END, END)


@settings(max_examples=400)
@given(PIECES, st.lists(st.integers(0, 400), max_size=6))
def test_whatever_comes_in_our_own_bytes_read_back_as_the_same_single_request(data: bytes, cuts: list[int]) -> None:
    events, _ = requests(data, cuts)
    for event in events:
        if isinstance(event, Request):
            wire = request_head(event, b"a.example", event.headers)
            assert wire.count(b"\r\n\r\n") == 1
            assert wire.endswith(b"\r\n\r\n")
            assert not {b"\n", b"\r", b"\0"} & set(wire.replace(b"\r\n", b"").split())
            again, error = requests(wire, [])
            assert error is None
            assert isinstance(again[0], Request)
            assert again[0].headers == event.headers
            assert (again[0].target, again[0].framing) == (event.target, event.framing)


@settings(max_examples=400)
@given(PIECES | st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_any_answer_is_whole_or_broken_and_never_raises_anything_else(data: bytes, head: bool, cuts: list[int]) -> None:
    parser = ResponseParser(head=head)
    at = 0
    events: list[ResponseEvent] = []
    try:
        for cut in sorted({c % (len(data) + 1) for c in cuts} | {len(data)}):
            parser.feed(data[at:cut])
            at = cut
        parser.eof()
    except UpstreamBroken:
        pass
    events = parser.events
    assert sum(isinstance(e, Response) for e in events) <= 1
    assert events.count(END) == int(parser.done)
    if events:
        assert isinstance(events[0], Response)
    if parser.done:
        assert events[-1] is END


def answer(data: bytes, *, head: bool = False, eof: bool = False) -> list[ResponseEvent]:
    parser = ResponseParser(head=head)
    parser.feed(data)
    if eof:
        parser.eof()
    return parser.events


BROKEN = {
    "41-unasked-101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "41-plain-101": b"HTTP/1.1 101 X\r\n\r\n",
    "41-cl-and-te": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "41-cl-twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "41-cl-same-twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "41-cl-signed": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "41-te-gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "41-te-then-rest": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "41-bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    "41-obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "41-nul": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "41-status-999": b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
    "41-http-2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "41-two-answers": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "41-body-after-204": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "41-body-after-304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
    "41-too-long-for-cl": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
    "41-many-interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "64-head-too-large": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "64-many-fields": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 300 + b"\r\n",
    "33-bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nAAXX0\r\n\r\n",
    "33-endless-trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 70_000,
    "0-garbage": b"\x15\x03\x03\x00\x02\x02\x31\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_an_answer_with_two_readings_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        answer(data)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_an_answer_that_ends_in_its_middle_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        answer(data, eof=True)


def test_41_bytes_that_come_after_the_end_are_broken() -> None:
    parser = ResponseParser(head=False)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(UpstreamBroken):
        parser.feed(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "target",
    [
        *(
            b"/../x",
            b"/a/..",
            b"/a/.",
            b"/./a",
            b"//a",
            b"/a//b",
            b"/%2e/a",
            b"/%2E%2e/a",
            b"/a%5cb",
            b"/a%3bb",
            b"/a;b",
        ),
        *(
            b"/a%00",
            b"/a%0d%0a",
            b"/a%7f",
            b"/a%252e",
            b"/a%u002e",
            b"/a\\b",
            b"/a#b",
            b"/\xff",
            b"/%c0%ae",
            b"/a b",
            b"/%",
        ),
        *(b"a", b"*", b"", b"http://a/b", b"?a", b"/a?b#c", b"/a?b c", b"/a?\xff", b"/a?_method=PUT", b"/?x;_METHOD"),
    ],
)
def test_43_a_target_with_two_readings_is_refused(target: bytes) -> None:
    with pytest.raises(Refused):
        split_target(target)


@pytest.mark.parametrize(
    "target", [b"/", b"/a-b_c~d.e/@x:y", b"/a%20b", b"/a/b/?x=1&y=%2F..", b"/a%2Fb", b"/x?", b"/.well-known"]
)
def test_an_ordinary_target_passes_as_it_is(target: bytes) -> None:
    path, query = split_target(target)
    assert (path.encode() if query is None else path.encode() + b"?" + query) == target


def test_the_answer_to_head_has_no_body_whatever_it_says() -> None:
    head, end = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", head=True)
    assert isinstance(head, Response)
    assert (head.framing, head.length, end) == (Framing.NONE, 500, END)


def test_a_body_without_framing_ends_with_the_connection() -> None:
    head, body, end = answer(b"HTTP/1.1 200 OK\r\n\r\nabc", eof=True)
    assert isinstance(head, Response)
    assert (head.framing, head.keep_alive, body, end) == (Framing.CLOSE, False, b"abc", END)


def test_fields_that_lead_around_the_fence_are_dropped() -> None:
    head = answer(
        b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nConnection: X-A\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n'
    )[0]
    assert isinstance(head, Response)
    assert head.headers == ((b"X-B", b"2"),)


def test_an_empty_chunk_is_no_chunk() -> None:
    assert chunk(b"") == b""
    assert chunk(b"abc") == b"3\r\nabc\r\n"


def test_the_servers_reason_phrase_is_not_repeated() -> None:
    assert response_head(299, [], length=0, chunked=False, close=False).startswith(b"HTTP/1.1 299 Unknown\r\n")
