"""The scrubber without sockets: no cut between two pieces lets a needle through, and nothing else is held back."""

import base64
import json
import pickle
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.egress.credentials.scrub import MARKER, Needles, Scrubber, needles
from paddock.egress.http.message import UpstreamBroken

SECRET = b"tok/en+with:odd~chars&1234"
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40).map(str.encode)


def scrub(secret: bytes, pieces: list[bytes]) -> bytes:
    scrubber = Scrubber(Needles([secret]))
    return b"".join(scrubber.body(p) for p in pieces) + scrubber.end()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at, out = 0, []
    for c in sorted({c % (len(data) + 1) for c in cuts} | {len(data)}):
        out.append(data[at:c])
        at = c
    return out


@settings(max_examples=300)
@given(
    values, st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(0, 300), max_size=8), st.integers(0, 7)
)
def test_no_cut_lets_a_secret_through(secret: bytes, before: bytes, after: bytes, cuts: list[int], how: int) -> None:
    forms = [
        secret,
        secret.hex().encode(),
        quote_from_bytes(secret, safe="").encode(),
        json.dumps(secret.decode())[1:-1].encode(),
        *(base64.b64encode(b"x" * n + secret)[(n * 8 + 5) // 6 : (n + len(secret)) * 8 // 6] for n in range(3)),
        base64.urlsafe_b64encode(secret)[: len(secret) * 8 // 6],
    ]
    form = forms[how]
    data = before + form + after
    clean = scrub(secret, cut(data, cuts))
    assert form not in clean
    assert MARKER in clean


@settings(max_examples=200)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_what_holds_no_needle_passes_unchanged(data: bytes, cuts: list[int]) -> None:
    if not any(needle in data for needle in needles(SECRET)):
        assert scrub(SECRET, cut(data, cuts)) == data


@given(st.binary(max_size=60), st.integers(0, 40))
def test_pending_is_the_longest_end_that_begins_a_needle(data: bytes, size: int) -> None:
    data += SECRET[:size]
    slow = max(
        (
            n
            for needle in needles(SECRET)
            for n in range(min(len(data), len(needle) - 1) + 1)
            if data.endswith(needle[:n])
        ),
        default=0,
    )
    assert Needles([SECRET]).pending(data) == slow


def test_67_an_event_that_begins_no_secret_is_not_held_back() -> None:
    scrubber = Scrubber(Needles([SECRET]))
    assert scrubber.body(b"data: hello\n\n") == b"data: hello\n\n"


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_no_bit_of_the_secret_is_left_beside_the_marker(shift: int) -> None:
    clean = scrub(SECRET, [base64.b64encode(b"x" * shift + SECRET)])
    assert clean.strip(b"=") in (MARKER, base64.b64encode(b"x" * 3)[:shift] + MARKER)


def test_needles_show_nothing_of_the_secret() -> None:
    compiled = Needles([SECRET])
    assert SECRET.decode() not in repr(compiled)
    with pytest.raises(TypeError):
        pickle.dumps(compiled)


def test_a_truncated_encoding_is_broken() -> None:
    import gzip

    scrubber = Scrubber(Needles([SECRET]))
    scrubber.headers([], b"gzip")
    scrubber.body(gzip.compress(b"a" * 1000)[:-10])
    with pytest.raises(UpstreamBroken):
        scrubber.end()
