"""A policy in transit: signed by the control plane for one sandbox, and stale beyond its end."""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy.compile import Compiled, Flat, canonical_json

_DOMAIN = b"paddock-policy/1\n"
_MAX = 8 << 20


class _Payload(Strict):
    sandbox: str
    policy: Flat
    not_after: AwareDatetime


@dataclass(frozen=True, slots=True)
class Verified:
    """A policy whose signature held, and when it goes stale."""

    compiled: Compiled
    not_after: datetime


def sign(compiled: Compiled, sandbox_id: str, not_after: datetime, key: Ed25519PrivateKey) -> str:
    """The policy for this sandbox until `not_after` (aware), as ASCII `payload.signature`, both base64url."""
    end = not_after.astimezone(UTC).isoformat()
    payload = canonical_json({"sandbox": sandbox_id, "policy": compiled.flat.model_dump(mode="json"), "not_after": end})
    signature = key.sign(_DOMAIN + payload.encode())
    return f"{_b64(payload.encode())}.{_b64(signature)}"


def verify(text: str, sandbox_id: str, public: Ed25519PublicKey, now: datetime) -> Compiled:
    """The policy in `text`. Raises PaddockError: not signed by this key, for another sandbox, or stale at `now`."""
    return open_signed(text, sandbox_id, public, now).compiled


def open_signed(text: str, sandbox_id: str, public: Ed25519PublicKey, now: datetime) -> Verified:
    """As `verify`, with the end of its validity beside it."""
    head, dot, tail = text.partition(".")
    if not dot or len(text) > _MAX:
        raise _refused("the signed policy is malformed")
    try:
        payload, signature = _unb64(head), _unb64(tail)
        # Nothing of the payload is parsed before its signature holds.
        public.verify(signature, _DOMAIN + payload)
        read = _Payload.model_validate_json(payload)
    except InvalidSignature:
        raise _refused("the policy's signature does not hold under the control plane's key") from None
    except (binascii.Error, UnicodeEncodeError, ValidationError):
        raise _refused("the signed policy is malformed") from None
    if read.sandbox != sandbox_id:
        raise _refused(f"the policy is signed for another sandbox than {sandbox_id}")
    if now >= read.not_after:
        raise _refused(f"the policy went stale at {read.not_after.isoformat()}")
    return Verified(Compiled(read.policy), read.not_after)


def _refused(message: str) -> PaddockError:
    return PaddockError(ErrorKind.NOT_ALLOWED, message, remedy="Attach the policy anew; the fence denies until then.")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
