"""A certificate authority per sandbox: keys only in memory, leaves made once their name was allowed, and bounded."""

import datetime
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paddock.policy.hosts import canonical

# Guests' clocks differ from ours: what we issue is valid this long before now.
SKEW: Final = datetime.timedelta(hours=24)
CA_LIFE: Final = datetime.timedelta(days=60)
LEAF_LIFE: Final = datetime.timedelta(days=2)
MAX_CONTEXTS: Final = 128
_HALF_LEAF_S: Final = LEAF_LIFE.total_seconds() / 2


@dataclass(frozen=True, slots=True)
class _Kept:
    context: ssl.SSLContext
    renew_at: float


class Authority:
    """The authority that one sandbox trusts, and nobody else."""

    def __init__(self, sandbox: str, clock: Callable[[], float], *, most: int = MAX_CONTEXTS) -> None:
        """`clock` gives Unix seconds; at most `most` server contexts (about 13 KB each) are kept."""
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._key = ec.generate_private_key(ec.SECP256R1())
        # One key for all leaves: making one costs more than signing, and whoever has it is already inside this process.
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        now = self._now()
        self._name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Paddock"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"Paddock fence of {sandbox}"[:64]),
            ]
        )
        self._end = now + CA_LIFE
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(self._end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        return f"<Authority, {len(self._kept)} contexts>"

    def context(self, name: str) -> ssl.SSLContext:
        """The server context for a canonical name (else ValueError), made on first use; ask only for allowed names."""
        now = self._clock()
        kept = self._kept.get(name)
        if kept is not None and now < kept.renew_at:
            self._kept.move_to_end(name)
            return kept.context
        if canonical(name) != name:
            raise ValueError("not a canonical host name")
        context = self._server_context(self._leaf(name))
        self._kept[name] = _Kept(context, now + _HALF_LEAF_S)
        self._kept.move_to_end(name)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return context

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC)

    def _leaf(self, name: str) -> bytes:
        now = self._now()
        # A common name has at most 64 characters; clients read the alternative name.
        common = name if len(name) <= 64 else "paddock"
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
            .issuer_name(self._name)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(min(now + LEAF_LIFE, self._end))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _server_context(self, leaf: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        # A resumed session skips the handshake in which the name is checked; every connection shows its own.
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        # `load_cert_chain` takes only a path; this one names memory and never a disk.
        descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(leaf + self._leaf_key_pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
