"""The embedded store: a file in which each value is sealed with AES-256-GCM under its own nonce, bound to its name."""

import base64
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.secrets.store import Ended, Secret, SecretUnavailable, check_name, check_value

KEY_BYTES = 32
LEASE_S = 10.0
_NONCE_BYTES = 12


class Entry(Strict):
    """One sealed value."""

    nonce: str
    sealed: str
    changed: datetime


class _File(Strict):
    version: int = 1
    secrets: dict[str, Entry] = {}


def _bound_to(name: str) -> bytes:
    """Additional data: a sealed value does not open under another name."""
    return b"paddock-secret/1\n" + name.encode()


class EmbeddedStore:
    """Secrets of one machine. `key` (32 bytes) comes from the caller; the file is 0600 and keeps its owner.

    Whoever can write the file can put an older state of it back: the seal is over each value, not over the set.
    """

    def __init__(self, path: Path, key: bytes, clock: Callable[[], float] = time.time) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {KEY_BYTES} bytes")
        self._path = path
        self._cipher = AESGCM(key)
        self._clock = clock

    def put(self, name: str, value: bytes) -> None:
        """Set a secret; raises PaddockError on a bad name or value."""
        check_name(name)
        check_value(value)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, value, _bound_to(name))
        entry = Entry(
            nonce=base64.b64encode(nonce).decode(),
            sealed=base64.b64encode(sealed).decode(),
            changed=datetime.fromtimestamp(self._clock(), UTC),
        )
        with self._changing() as file:
            file.secrets[name] = entry

    def remove(self, name: str) -> bool:
        """Delete a secret; answers whether there was one."""
        with self._changing() as file:
            return file.secrets.pop(name, None) is not None

    def names(self) -> list[tuple[str, datetime]]:
        """All names with the time of their last change, sorted; values stay sealed."""
        return sorted((name, entry.changed) for name, entry in self._load().secrets.items())

    def get(self, name: str) -> bytes:
        """The value; raises SecretUnavailable."""
        entry = self._load().secrets.get(name)
        if entry is None:
            raise SecretUnavailable(f"secret {name} is not in the store", f"paddock secret set {name}")
        try:
            nonce, sealed = base64.b64decode(entry.nonce), base64.b64decode(entry.sealed)
            return self._cipher.decrypt(nonce, sealed, _bound_to(name))
        except (InvalidTag, ValueError):
            raise SecretUnavailable(
                f"secret {name} does not open with this store's key: the file was changed or the key is another one",
                f"paddock secret set {name} puts it in anew",
            ) from None

    def open(self, sandbox: str) -> "EmbeddedSession":
        return EmbeddedSession(self, self._clock)

    def end_by_accessor(self, accessor: str) -> Ended:
        return Ended(True, "a session of the embedded store dies with its broker")

    def _load(self) -> _File:
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise SecretUnavailable(f"the secret store {self._path} can't be read: {error.strerror}") from error
        except ValidationError as error:
            raise SecretUnavailable(
                f"the secret store {self._path} is damaged", "put back a copy of it, or remove it and set secrets anew"
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """Hold the lock, change a copy, put it in place whole."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                file = self._load()
                yield file
                self._save(file)
            finally:
                os.close(lock)
        except OSError as error:
            raise PaddockError(
                ErrorKind.SECRET_UNAVAILABLE,
                f"the secret store {self._path} can't be written: {error.strerror}",
                remedy="run as the user that owns the state directory, or free some space",
            ) from error

    def _save(self, file: _File) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(json.dumps(file.model_dump(mode="json"), indent=1, sort_keys=True).encode())
            out.flush()
            self._keep_owner(out.fileno())
            os.fsync(out.fileno())
        temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _keep_owner(self, descriptor: int) -> None:
        """Root that changes a user's store leaves it to that user."""
        if os.geteuid() == 0:
            model = self._path if self._path.exists() else self._path.parent
            owner = model.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


class EmbeddedSession:
    """One sandbox's handle; it lives in this process only, and reads nothing once it was ended."""

    accessor = ""

    def __init__(self, store: EmbeddedStore, clock: Callable[[], float]) -> None:
        self._store: EmbeddedStore | None = store
        self._clock = clock

    def read(self, ref: str) -> Secret:
        if self._store is None:
            raise SecretUnavailable("this sandbox's session was ended")
        return Secret(self._store.get(ref), self._clock() + LEASE_S)

    def renew_at(self) -> float | None:
        return None

    def renew(self) -> None:
        return None

    def end(self) -> Ended:
        self._store = None
        try:
            self.read("probe")
        except SecretUnavailable:
            return Ended(True, "the session was tried again and refused")
        return Ended(False, "the ended session still reads")


def load_or_make_store_key(path: Path) -> bytes:
    """The embedded store's key: 32 bytes in a file of 0600, made once; raises PaddockError when damaged, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(os.urandom(KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        try:
            # link, not rename: of two that make the key at once, both use the first one's.
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise PaddockError(ErrorKind.SECRET_UNAVAILABLE, f"{path} is not the key of a secret store")
    return key
