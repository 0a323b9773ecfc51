"""A host's client certificate: its key is made here and stays here, the store's PKI signs the name it may have."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from paddock.bootstrap.bao import Bao, text_of
from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden

# A certificate that ends sooner is not worth starting a host with.
LEAST_S = 600


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and its certificate with those between it and the root, PEM; `until` in seconds since 1970."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    until: float


def ask_for(bao: Bao, token: Hidden, path: str, name: str, uri: str, lives_s: int) -> Certificate:
    """A new key (P-256) and its certificate with common name `name` and the URI `uri`, for client use.

    Raises Refused when the store does not sign that name or answers another certificate, NotYet when it can't be asked.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    asked = {
        "csr": request.public_bytes(Encoding.PEM).decode(),
        "common_name": name,
        "uri_sans": uri,
        "exclude_cn_from_sans": True,
        "ttl": f"{lives_s}s",
    }
    said = bao.ask("POST", path, f"sign a certificate for {name}", asked, token=token)
    pem = text_of(said, "data", "certificate").encode()
    chain = said["data"].get("ca_chain") or []
    try:
        made = x509.load_pem_x509_certificate(pem)
        above = [x509.load_pem_x509_certificate(str(one).encode()) for one in chain]
    except ValueError:
        raise NotYet("the secret store's answer holds no certificate") from None
    if _public(made.public_key()) != _public(key.public_key()) or _uris(made) != [uri]:
        raise Refused(f"the secret store signed another certificate than the one of {name}", field=path)
    between = [one for one in above if one.subject != one.issuer]
    return Certificate(
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        chain_pem=b"".join(one.public_bytes(Encoding.PEM) for one in (made, *between)),
        until=made.not_valid_after_utc.timestamp(),
    )


def standing_until(certificate: Path, key: Path, uri: str, now: float) -> float:
    """Until when the certificate that lies there holds; 0 when there is none of this machine with its key."""
    try:
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError):
        return 0.0
    if _public(made.public_key()) != _public(private.public_key()) or _uris(made) != [uri]:
        return 0.0
    until = made.not_valid_after_utc.timestamp()
    return until if made.not_valid_before_utc <= datetime.fromtimestamp(now, UTC) and now + LEAST_S < until else 0.0


def _uris(made: x509.Certificate) -> list[str]:
    try:
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _public(key: object) -> bytes:
    # Any kind of public key that a certificate may hold can say this.
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]
