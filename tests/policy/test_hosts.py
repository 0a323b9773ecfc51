"""Host names: one canonical form, and what no policy may name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.policy import hosts


@pytest.mark.parametrize(
    "name", ["api.example.com", "API.Example.Com", "api.example.com.", "a-b.xn--bcher-kva.example"]
)
def test_an_ascii_name_has_one_canonical_form(name: str) -> None:
    assert hosts.canonical(name) == name.lower().rstrip(".")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "com",
        "a..b",
        "a.b..",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b.c",
        "a.b:443",
        "u@a.b",
        "a.b/c",
        "ⓖithub.com",
        "example.com。evil",
        "аpi.example.com",
        "127.1",
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "a.0x7f",
        "a.1",
        "[::1]",
        "::ffff:169.254.169.254",
        "a." + "b" * 64,
        ".".join(["a" * 63] * 4) + ".com",
        "a.b\x00",
        "a.b\n",
        "a.b%eth0",
        "*.a.b",
    ],
)
def test_what_is_no_plain_host_name_has_no_canonical_form(name: str) -> None:
    assert hosts.canonical(name) is None


@given(st.text(max_size=300))
def test_a_canonical_name_is_its_own_canonical_form(name: str) -> None:
    found = hosts.canonical(name)
    assert found is None or (hosts.canonical(found) == found and found.isascii() and found == found.lower())


@pytest.mark.parametrize(
    "host", ["api.example.com", "*.example.com", "*.corp.example", "*.a.github.io", "github.io", "git.corp.internal"]
)
def test_a_policy_may_name_exact_hosts_and_narrow_wildcards(host: str) -> None:
    assert hosts.problem_of(host) is None


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("*.com", "public suffix"),
        ("*.co.uk", "public suffix"),
        ("*.github.io", "public suffix"),
        ("*.s3.amazonaws.com", "public suffix"),
        ("*.amazonaws.com", "public suffixes lie below"),
        ("*.ck", "public suffix"),
        ("*.foo.ck", "public suffix"),
        ("*.internal", "public suffix"),
        ("*", "alone as the first label"),
        ("*.*.example.com", "alone as the first label"),
        ("a.*.example.com", "alone as the first label"),
        ("*example.com", "alone as the first label"),
        ("127.0.0.1", "an address is not a host"),
        ("10.1.2.3", "an address is not a host"),
        ("127.1", "an address is not a host"),
        ("2130706433", "an address is not a host"),
        ("0x7f000001", "an address is not a host"),
        ("[::1]", "an address is not a host"),
        ("::1", "an address is not a host"),
        ("fe80::1%eth0", "an address is not a host"),
        ("localhost", "this machine"),
        ("db.localhost", "this machine"),
        ("*.localhost", "this machine"),
        ("metadata.google.internal", "metadata"),
        ("Metadata.Google.Internal.", "metadata"),
        ("intranet", "two labels"),
        ("https://a.example.com", "only the name"),
        ("a.example.com:443", "only the name"),
        ("user@a.example.com", "only the name"),
        ("bücher.example", "xn--"),
        ("a_b.example.com", "not a host name"),
        ("-a.example.com", "not a host name"),
    ],
)
def test_a_policy_may_not_name(host: str, words: str) -> None:
    assert words in (hosts.problem_of(host) or "")
