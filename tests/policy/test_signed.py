"""A signed policy: for one sandbox, by one key, until its end."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy.compile import compile_policy
from paddock.policy.document import parse
from paddock.policy.signed import open_signed, sign, verify
from tests.policy.documents import WHOLE

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
END = NOW + timedelta(hours=1)
COMPILED = compile_policy(parse(WHOLE, "x"))
SIGNED = sign(COMPILED, "sb-1", END, KEY)


def refused(text: str, sandbox: str = "sb-1", key: Ed25519PrivateKey = KEY, now: datetime = NOW) -> str:
    with pytest.raises(PaddockError) as caught:
        verify(text, sandbox, key.public_key(), now)
    assert caught.value.kind is ErrorKind.NOT_ALLOWED
    return str(caught.value)


def test_a_signed_policy_verifies_to_the_same_policy_and_end() -> None:
    assert verify(SIGNED, "sb-1", KEY.public_key(), NOW) == COMPILED
    assert open_signed(SIGNED, "sb-1", KEY.public_key(), NOW).not_after == END


def test_an_end_in_another_time_zone_is_the_same_moment() -> None:
    text = sign(COMPILED, "sb-1", END.astimezone(timezone(timedelta(hours=5))), KEY)
    assert open_signed(text, "sb-1", KEY.public_key(), NOW).not_after == END


def test_another_sandbox_another_key_and_a_later_time_are_refused() -> None:
    assert "another sandbox" in refused(SIGNED, sandbox="sb-2")
    assert "signature" in refused(SIGNED, key=Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    assert "stale" in refused(SIGNED, now=END)


def test_no_changed_byte_passes() -> None:
    payload, _, signature = SIGNED.partition(".")
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).replace(b"acme", b"evil")
    forged = base64.urlsafe_b64encode(text).decode().rstrip("=")
    assert "signature" in refused(f"{forged}.{signature}")


def test_a_signature_over_the_bare_payload_is_not_taken_for_ours() -> None:
    payload = SIGNED.partition(".")[0]
    bare = KEY.sign(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert "signature" in refused(f"{payload}.{base64.urlsafe_b64encode(bare).decode().rstrip('=')}")


@given(st.text(max_size=60))
def test_no_other_text_passes(text: str) -> None:
    refused(text)
    refused(SIGNED[: len(SIGNED) // 2] + text)
