"""The sandbox's authority: certificates that strict clients take, and keys that touch no disk."""

import datetime
import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from paddock.contracts.errors import PaddockError
from paddock.egress.tls.authority import CA_LIFE, LEAF_LIFE, SKEW, Authority
from paddock.egress.tls.client import client_context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> x509.Certificate:
    """The certificate that `client` accepted from `server` for `name`, or ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        if theirs.version() and theirs.getpeercert(binary_form=True):
            break
    found = theirs.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def trusting(authority: Authority, flags: ssl.VerifyFlags = ssl.VerifyFlags.VERIFY_X509_STRICT) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.ca_pem.decode())
    context.verify_flags |= flags
    return context


def test_a_strict_client_accepts_the_name_and_only_the_name() -> None:
    authority = Authority("sb-1", time.time)
    leaf = shake(authority.context("api.example.com"), trusting(authority), "api.example.com")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["api.example.com"]
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(authority.context("api.example.com"), trusting(authority), "other.example.com")


def test_another_sandbox_does_not_trust_it() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(Authority("a", time.time).context("a.example.com"), trusting(Authority("b", time.time)), "a.example.com")


def test_the_authority_signs_leaves_only_and_a_leaf_only_serves() -> None:
    authority = Authority("sb-1", time.time)
    ca = x509.load_pem_x509_certificate(authority.ca_pem)
    leaf = shake(authority.context("a.example.com"), trusting(authority), "a.example.com")
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]


def test_validity_is_short_and_begins_before_now_for_clocks_that_differ() -> None:
    now = time.time()
    authority = Authority("sb-1", lambda: now)
    leaf = shake(authority.context("a.example.com"), trusting(authority), "a.example.com")
    ca = x509.load_pem_x509_certificate(authority.ca_pem)
    at = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (at - SKEW, at + LEAF_LIFE)
    assert (ca.not_valid_before_utc, ca.not_valid_after_utc) == (at - SKEW, at + CA_LIFE)


def test_a_context_is_made_once_and_again_before_its_leaf_ends() -> None:
    now = [time.time()]
    authority = Authority("sb-1", lambda: now[0])
    first = authority.context("a.example.com")
    assert authority.context("a.example.com") is first
    now[0] += LEAF_LIFE.total_seconds() / 2 + 1
    assert authority.context("a.example.com") is not first


def test_a_flood_of_names_keeps_only_the_latest() -> None:
    authority = Authority("sb-1", time.time, most=3)
    first = authority.context("h0.example.com")
    for i in range(1, 6):
        authority.context(f"h{i}.example.com")
    assert repr(authority) == "<Authority, 3 contexts>"
    assert authority.context("h0.example.com") is not first


def test_a_name_of_253_characters_gets_a_certificate() -> None:
    name = ".".join(["a" * 60] * 4) + ".example"
    authority = Authority("sb-1", time.time)
    assert shake(authority.context(name), trusting(authority), name)


@pytest.mark.parametrize("name", ["A.example.com", "10.0.0.1", "*.example.com", "", "a.example.com."])
def test_no_certificate_is_made_for_what_is_no_canonical_name(name: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        Authority("sb-1", time.time).context(name)


def test_old_tls_is_not_spoken_and_http_2_not_offered() -> None:
    context = Authority("sb-1", time.time).context("a.example.com")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_minting_opens_no_file_on_a_disk_and_leaks_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority("sb-1", time.time)
    before = os.listdir("/proc/self/fd")
    loaded: list[str] = []
    real = ssl.SSLContext.load_cert_chain

    def watch(self: ssl.SSLContext, path: str) -> None:
        loaded.append(os.readlink(path))
        real(self, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    authority.context("a.example.com")
    assert loaded == ["/memfd:leaf (deleted)"]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_that_is_shown_holds_a_key() -> None:
    authority = Authority("sb-1", time.time)
    assert b"PRIVATE" not in authority.ca_pem
    assert "PRIVATE" not in repr(authority)


# The other side: how servers are verified.


def test_a_server_is_verified_by_its_name_and_the_given_authority(tmp_path: Path) -> None:
    corp, other = Authority("corp", time.time), Authority("other", time.time)
    (tmp_path / "ca.pem").write_bytes(corp.ca_pem)
    context = client_context(tmp_path / "ca.pem")
    assert shake(corp.context("git.corp.example"), context, "git.corp.example")
    for server, name in ((corp, "evil.corp.example"), (other, "git.corp.example")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(server.context("git.corp.example"), context, name)


def test_without_an_authority_the_systems_are_trusted_and_no_sandboxs() -> None:
    context = client_context(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(Authority("sb-1", time.time).context("a.example.com"), context, "a.example.com")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    past = Authority("corp", lambda: time.time() - LEAF_LIFE.total_seconds() - 10)
    (tmp_path / "ca.pem").write_bytes(past.ca_pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(past.context("a.example.com"), client_context(tmp_path / "ca.pem"), "a.example.com")


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_an_authority_that_cannot_be_read_is_an_error_with_what_to_do(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PaddockError, match="cannot be used"):
        client_context(path)
