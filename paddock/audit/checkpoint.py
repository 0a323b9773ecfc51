"""Checkpoints: C2SP signed notes (Ed25519) over size and root of one sandbox's chain, and the keys that sign them."""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

MAX_NOTE_BYTES = 4096
_ED25519 = b"\x01"
Keys = Mapping[str, Ed25519PublicKey]


class BadNote(ValueError):
    """Not a checkpoint, or not one that its signer made."""


class UnknownKey(ValueError):
    """A well-formed checkpoint, signed by nobody whose key is known here."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a recorder swore to: the chain `origin` had `size` lines with this root at `at` (RFC 3339)."""

    origin: str
    size: int
    root: bytes
    at: str
    signer: str = ""

    @property
    def sandbox(self) -> str:
        return self.origin.rpartition("/")[2]

    def body(self) -> bytes:
        """The signed text; the time is a C2SP extension line, so that a heartbeat differs from the one before."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\ntime {self.at}\n".encode()


def key_name(environment: str, host: str) -> str:
    """The name under which a host's recorder signs."""
    return f"{environment}/{host}"


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + _raw(key)).digest()[:4]


def sign(checkpoint: Checkpoint, name: str, key: Ed25519PrivateKey) -> str:
    """The checkpoint as a signed note (C2SP signed-note v1)."""
    body = checkpoint.body()
    signature = base64.b64encode(_key_hash(name, key.public_key()) + key.sign(body)).decode()
    return f"{body.decode()}\n\u2014 {name} {signature}\n"


def open_note(note: str, keys: Keys) -> Checkpoint:
    """The checkpoint in a note signed by one of `keys`; raises BadNote or UnknownKey."""
    checkpoint = parse(note)
    body, _, signatures = note.partition("\n\n")
    for signature in signatures.splitlines():
        dash, _, rest = signature.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014" or not name or not encoded:
            raise BadNote("a signature line that is none")
        key = keys.get(name)
        blob = _decode(encoded)
        if key is None or blob[:4] != _key_hash(name, key):
            continue
        try:
            key.verify(blob[4:], body.encode() + b"\n")
        except InvalidSignature:
            raise BadNote(f"the signature of {name} does not fit the text") from None
        return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, checkpoint.at, name)
    raise UnknownKey("signed by no key that is known here")


def parse(note: str) -> Checkpoint:
    """What a note says, whoever signed it; raises BadNote."""
    if len(note) > MAX_NOTE_BYTES:
        raise BadNote("a note that is too long")
    body, separator, _ = note.partition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) < 3 or not lines[0] or not lines[1].isascii() or not lines[1].isdigit():
        raise BadNote("not a checkpoint: origin, size and root are missing")
    if len(lines[1]) > 18 or (lines[1] != "0" and lines[1].startswith("0")):
        raise BadNote("not a checkpoint: a size that is none")
    root = _decode(lines[2])
    if len(root) != 32:
        raise BadNote("not a checkpoint: a root of the wrong length")
    at = next((line.removeprefix("time ") for line in lines[3:] if line.startswith("time ")), "")
    return Checkpoint(lines[0], int(lines[1]), root, at)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("not base64 where base64 belongs") from None


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """A public key as C2SP's `name+hash+key`."""
    return f"{name}+{_key_hash(name, key).hex()}+{base64.b64encode(_ED25519 + _raw(key)).decode()}"


def read_verifier_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Name and key of a C2SP verifier key; raises BadNote."""
    name, _, rest = text.strip().partition("+")
    claimed, _, encoded = rest.partition("+")
    blob = _decode(encoded)
    if not name or len(blob) != 33 or blob[:1] != _ED25519:
        raise BadNote("not a verifier key: name+hash+key")
    key = Ed25519PublicKey.from_public_bytes(blob[1:])
    if _key_hash(name, key).hex() != claimed:
        raise BadNote("a verifier key whose hash does not fit its name and key")
    return name, key


def load_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The verifier keys of a file (one a line, # comments) or of all *.vkey files of a directory; raises BadNote."""
    files = sorted(path.glob("*.vkey")) if path.is_dir() else [path]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(read_verifier_key(line) for line in lines if line.strip() and not line.startswith("#"))


def load_or_make_key(directory: Path, environment: str, host: str) -> Ed25519PrivateKey:
    """This host's signing key, made once: `recorder.key` (0600) and, for verifiers, `recorder.vkey` beside it."""
    private, public = directory / "recorder.key", directory / "recorder.vkey"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not private.exists():
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        temporary = private.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(private)
    key = load_pem_private_key(private.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadNote(f"{private} is not an Ed25519 key")
    text = verifier_key(key_name(environment, host), key.public_key()) + "\n"
    if not public.exists() or public.read_text() != text:
        public.write_text(text)
    return key
