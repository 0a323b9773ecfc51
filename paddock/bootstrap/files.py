"""A credential on disk: whole or not at all, and for its owner only."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError


def write_secret(place: Path, content: bytes) -> Path:
    """`content` at `place`, mode 0600, durable; a reader sees the old or the new one. Raises PaddockError SET_UP."""
    beside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        try:
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(place)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as wrong:
        words = f"a credential cannot be written: {wrong.strerror}"
        raise PaddockError(ErrorKind.SET_UP, words, field=str(place)) from None
    return place
