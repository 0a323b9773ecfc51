"""Inputs and outputs of sandboxes on this host: files named by their SHA-256, each in its own sandbox's folder.

A digest stands in workflow history, so knowing one must open nothing: an object is reachable only through the sandbox
that it was put for, and nothing is shared between sandboxes. All writing is here, bounded, and atomic by rename.
"""

import asyncio
import errno
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from paddock.contracts.errors import ErrorKind, PaddockError

_SANDBOX: Final = re.compile(r"sb-[0-9a-f]{20}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PART: Final = ".part-"


class ObjectWriter:
    """One object on its way in: write, then `commit`; leaving the block without it leaves nothing behind."""

    def __init__(self, store: "ObjectStore", sandbox_id: str, digest: str | None, size: int | None) -> None:
        self._store, self._sandbox, self._digest, self._size = store, sandbox_id, digest, size
        folder = store.folder(sandbox_id)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not tempfile: it makes the path absolute, which a worker without privilege may not reach.
            name = folder / f"{_PART}{secrets.token_hex(8)}"
            number = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as wrong:
            raise _disk(wrong) from wrong
        self._file, self._path = os.fdopen(number, "wb"), name
        self._hash = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Raises PaddockError when it grows past what was announced, or past what the store may take."""
        if self._size is not None and self.written + len(data) > self._size:
            raise PaddockError(ErrorKind.BAD_SPEC, f"more than the {self._size} bytes that were announced")
        self._store.take(len(data))
        self.written += len(data)
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as wrong:
            raise _disk(wrong) from wrong

    def commit(self) -> str:
        """The object's digest, now that it is there; raises PaddockError when it is not what was announced."""
        digest = "sha256:" + self._hash.hexdigest()
        if self._size is not None and self.written != self._size:
            raise PaddockError(ErrorKind.BAD_SPEC, f"{self.written} bytes came, {self._size} were announced")
        if self._digest is not None and digest != self._digest:
            raise PaddockError(
                ErrorKind.BAD_SPEC, "the bytes are not what their digest says", field=self._digest, remedy="send again"
            )
        try:
            self._file.close()
            kept = self._store.path(self._sandbox, digest)
            if kept.exists():
                self.abort()
                return digest
            self._path.replace(kept)
        except OSError as wrong:
            raise _disk(wrong) from wrong
        self.written = 0
        self._store.arrived(self._sandbox, digest)
        return digest

    def abort(self) -> None:
        """Leave nothing; harmless after `commit`."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._store.take(-self.written)
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: TracebackType | None) -> None:
        self.abort()


class ObjectStore:
    """The objects of one host; `max_bytes` bounds all of them together. For one event loop, in one process."""

    def __init__(self, directory: Path, max_bytes: int = 16 << 30) -> None:
        self._directory, self._max = directory, max_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(f"*/{_PART}*"):
            left.unlink(missing_ok=True)
        self._used = sum(found.stat().st_size for found in directory.glob("*/*"))
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    @property
    def used_bytes(self) -> int:
        return self._used

    def folder(self, sandbox_id: str) -> Path:
        """Where a sandbox's objects lie; raises ValueError for anything but a sandbox's id."""
        if not _SANDBOX.fullmatch(sandbox_id):
            raise ValueError("not a sandbox's id")
        return self._directory / sandbox_id

    def path(self, sandbox_id: str, digest: str) -> Path:
        """Where an object lies or would lie; raises ValueError for anything but a digest."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a digest")
        return self.folder(sandbox_id) / digest.removeprefix("sha256:")

    def has(self, sandbox_id: str, digest: str) -> bool:
        return self.path(sandbox_id, digest).is_file()

    def writer(self, sandbox_id: str, digest: str | None = None, size: int | None = None) -> ObjectWriter:
        """A new object; with `digest` and `size` in bytes, anything else is refused at `commit`."""
        return ObjectWriter(self, sandbox_id, digest, size)

    async def wait(self, sandbox_id: str, digest: str, timeout_s: float) -> Path:
        """The object's path once it is there; raises PaddockError INPUT_MISSING when it did not come in time."""
        path = self.path(sandbox_id, digest)
        if not path.is_file():
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault((sandbox_id, digest), [])
            waiting.append(arrival)
            try:
                async with asyncio.timeout(timeout_s):
                    await arrival
            except TimeoutError:
                raise PaddockError(
                    ErrorKind.INPUT_MISSING,
                    f"an input did not arrive within {timeout_s:g} s",
                    field=digest,
                    remedy="the client uploads it after the start: is it still running, and does it reach the relay?",
                ) from None
            finally:
                waiting.remove(arrival)
                if not waiting:
                    self._waiting.pop((sandbox_id, digest), None)
        return path

    def forget(self, sandbox_id: str) -> None:
        """Drop everything that was kept for a sandbox; harmless when nothing is."""
        folder = self.folder(sandbox_id)
        if folder.is_dir():
            freed = sum(found.stat().st_size for found in folder.iterdir() if not found.name.startswith(_PART))
            shutil.rmtree(folder)
            self._used -= freed

    def sandboxes(self) -> tuple[str, ...]:
        """Whose objects are here: what a sweep compares with the sandboxes that may still be asked for."""
        return tuple(sorted(found.name for found in self._directory.iterdir() if _SANDBOX.fullmatch(found.name)))

    def take(self, size: int) -> None:
        """Count bytes in (or out, when negative); raises PaddockError DISK_FULL past the store's bound."""
        if size > 0 and self._used + size > self._max:
            raise PaddockError(
                ErrorKind.DISK_FULL,
                f"inputs and outputs on this host would take more than {self._max >> 20} MiB",
                remedy="stop sandboxes that are done, or give the host a larger object store",
            )
        self._used += size

    def arrived(self, sandbox_id: str, digest: str) -> None:
        """Wake whoever waits for this object."""
        for arrival in self._waiting.get((sandbox_id, digest), ()):
            if not arrival.done():
                arrival.set_result(None)


def _disk(wrong: OSError) -> PaddockError:
    if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
        return PaddockError(ErrorKind.DISK_FULL, "the host's disk is full", remedy="free space in its state directory")
    return PaddockError(ErrorKind.INTERNAL, f"the host cannot store an object: {wrong.strerror or wrong}")
