"""Sets a secret's header on a request that a rule allows; the guest's own value of it never goes along."""

import re
from collections.abc import Sequence
from typing import Final

from paddock.egress.credentials.scrub import SHORTEST_SECRET_BYTES
from paddock.egress.http.message import Header
from paddock.egress.ports import Secret, SecretUnavailable
from paddock.policy.decide import SecretUse

# Never a place for a secret, whatever a policy says: routing, framing, or fields that servers log and pass on.
NEVER: Final = frozenset(
    b"host cookie referer user-agent connection content-length content-type transfer-encoding te trailer upgrade"
    b" expect range if-range accept-encoding forwarded via origin".split()
)
# With these a guest could take an answer apart until no piece holds a needle, or hide it in an encoding.
_STRIPPED: Final = frozenset(
    b"range if-range accept-encoding accept-charset te want-digest want-content-digest want-repr-digest".split()
)
_SPEAKABLE: Final = re.compile(rb"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")


def usable(secret: Secret, now: float) -> bytes:
    """The secret's value, or SecretUnavailable when it has expired or can't stand in a header."""
    if secret.expires_at <= now:
        raise SecretUnavailable("the secret has expired")
    if len(secret.value) < SHORTEST_SECRET_BYTES:
        raise SecretUnavailable("the secret is too short to be kept out of answers")
    if len(secret.value) > 16384 or not _SPEAKABLE.fullmatch(secret.value):
        raise SecretUnavailable("the secret's bytes can't stand in a header")
    return secret.value


def inject(headers: Sequence[Header], uses: Sequence[tuple[SecretUse, bytes]]) -> tuple[Header, ...]:
    """Headers with each secret set at its place (set, not added), ready for an answer that can be scrubbed."""
    places: dict[bytes, bytes] = {}
    for use, value in uses:
        name = use.header.lower().encode("ascii")
        if use.location != "header" or name in NEVER or name in places:
            raise SecretUnavailable("the secret has no place in this request")
        places[name] = b"Bearer " + value if use.scheme == "bearer" else value
    kept = [header for header in headers if header[0] not in _STRIPPED and header[0] not in places]
    kept.append((b"accept-encoding", b"identity"))
    kept += places.items()
    return tuple(kept)
