"""Checkpoints as C2SP signed notes: what was signed comes back, anything else does not."""

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from paddock.audit.checkpoint import (
    BadNote,
    Checkpoint,
    UnknownKey,
    load_keys,
    load_or_make_key,
    open_note,
    read_verifier_key,
    sign,
    verifier_key,
)
from tests.audit.rig import KEY, KEYS, NAME

POINT = Checkpoint("local/h1/sb-1", 42, bytes(range(32)), "2026-11-25T10:00:00.000000Z")
NOTE = sign(POINT, NAME, KEY)


def test_what_was_signed_comes_back() -> None:
    opened = open_note(NOTE, KEYS)
    assert (opened.origin, opened.size, opened.root, opened.at, opened.signer) == (
        POINT.origin,
        42,
        POINT.root,
        POINT.at,
        NAME,
    )
    assert opened.sandbox == "sb-1"


def test_the_note_is_laid_out_as_c2sp_says() -> None:
    assert NOTE.splitlines()[:5] == [
        "local/h1/sb-1",
        "42",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "time 2026-11-25T10:00:00.000000Z",
        "",
    ]
    assert NOTE.splitlines()[5].startswith("\u2014 local/h1 ")


def test_the_verifier_key_of_the_c2sp_specification_is_read() -> None:
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    name, key = read_verifier_key(text)
    assert name == "PeterNeumann"
    assert verifier_key(name, key) == text
    note = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFY"
        "C2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    body, _, signature = note.partition("\n\n")
    key.verify(base64.b64decode(signature.split()[2])[4:], body.encode() + b"\n")


@pytest.mark.parametrize(
    "change",
    [("42", "43"), ("AAEC", "AAED"), ("time 2026", "time 2025"), ("sb-1", "sb-2"), ("42\n", "042\n"), ("42\n", "x\n")],
)
def test_a_note_that_was_changed_is_refused(change: tuple[str, str]) -> None:
    with pytest.raises(BadNote):
        open_note(NOTE.replace(*change, 1), KEYS)


def test_a_key_that_is_not_known_is_not_a_bad_note() -> None:
    with pytest.raises(UnknownKey):
        open_note(sign(POINT, NAME, Ed25519PrivateKey.generate()), KEYS)
    with pytest.raises(UnknownKey):
        open_note(NOTE, {})


@given(st.text(max_size=300))
def test_any_text_is_refused_in_order(text: str) -> None:
    with pytest.raises((BadNote, UnknownKey)):
        open_note(text, KEYS)


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_no_single_change_of_the_signed_text_goes_unnoticed(at: int, new: str) -> None:
    changed = NOTE[:at] + new + NOTE[at + 1 :]
    if changed.partition("\n\n")[0] == NOTE.partition("\n\n")[0]:
        return
    with pytest.raises((BadNote, UnknownKey)):
        open_note(changed, KEYS)


def test_a_hosts_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path / "keys", "local", "h1")
    again = load_or_make_key(tmp_path / "keys", "local", "h1")
    assert key.private_bytes_raw() == again.private_bytes_raw()
    assert (tmp_path / "keys" / "recorder.key").stat().st_mode & 0o777 == 0o600
    loaded = load_keys(tmp_path / "keys")
    assert list(loaded) == [NAME]
    assert isinstance(loaded[NAME], Ed25519PublicKey)
    assert open_note(sign(POINT, NAME, key), loaded).signer == NAME


def test_a_verifier_key_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.vkey"
    file.write_text(verifier_key(NAME, KEYS[NAME]).replace("local", "other"))
    with pytest.raises(BadNote):
        load_keys(file)
    with pytest.raises(BadNote):
        read_verifier_key(os.urandom(8).hex())
