"""How the fence verifies servers: always, by name, with TLS 1.2 or newer; there is no switch that turns it off."""

import functools
import ssl
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError


@functools.lru_cache(maxsize=256)
def client_context(ca: Path | None) -> ssl.SSLContext:
    """A context that trusts the system's authorities or, with `ca` (a PEM file), that one only.

    Made once for each file and shared: reading the system's authorities costs tens of milliseconds, which the keeper
    pays before it forks. Raises PaddockError when the file is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise PaddockError(
            ErrorKind.SET_UP,
            f"the certificate authority {ca} cannot be used: {error.strerror or 'no certificate in it'}",
            remedy="Name a PEM file with the authority's certificate in the connection's `ca`.",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    # A certificate's common name is no proof of a host name (RFC 9525); only its subject alternative names are.
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
