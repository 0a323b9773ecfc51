"""Which store tokens are out, by accessor: a name that can revoke a token but not use it. Survives the broker."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from paddock.contracts.base import Strict


class _Out(Strict):
    accessors: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Accessors:
    """A file of accessors per sandbox; several processes and threads may change it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / "accessors.json"
        self._lock_path = directory / "accessors.lock"

    def of(self, sandbox: str) -> tuple[str, ...]:
        """Accessors of a sandbox's tokens that are not proved gone."""
        return self._read().accessors.get(sandbox, ())

    def sandboxes(self) -> set[str]:
        """Every sandbox that has some."""
        return set(self._read().accessors)

    def add(self, sandbox: str, accessor: str) -> None:
        """Durable before it returns, so before the token is first used."""
        if accessor:
            with self._changing() as out:
                out[sandbox] = (*(a for a in out.get(sandbox, ()) if a != accessor), accessor)

    def remove(self, sandbox: str, accessor: str) -> None:
        """Only after the token is proved gone."""
        if accessor:
            with self._changing() as out:
                left = tuple(a for a in out.pop(sandbox, ()) if a != accessor)
                if left:
                    out[sandbox] = left

    def _read(self) -> _Out:
        try:
            return _Out.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Out()

    @contextmanager
    def _changing(self) -> Iterator[dict[str, tuple[str, ...]]]:
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            out = dict(self._read().accessors)
            yield out
            temporary = self._path.with_suffix(".new")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(_Out(accessors=out).model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        finally:
            os.close(lock)
