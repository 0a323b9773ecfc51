"""How an asset is built: one tool run with its error told, one artefact made once, checked, and put in place whole."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError

Progress = Callable[[str, float | None], None]
"""Told what is being done now, and how much of it is done (0 to 1) where that is known."""

_KEY_DIGITS = 16
_MESSAGE_LINES = 8


@dataclass(frozen=True, slots=True)
class Built:
    """A file of the cache and the SHA-256 of its content."""

    path: Path
    digest: str


def quiet(_step: str, _done: float | None) -> None:
    """A progress callback for those who do not watch."""


def key(*inputs: bytes | str) -> str:
    """A short name for a set of inputs: other inputs, other name."""
    total = hashlib.sha256()
    for part in inputs:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "little") + raw)
    return total.hexdigest()[:_KEY_DIGITS]


def file_digest(path: Path) -> str:
    """`sha256:` and 64 hex digits of a file's content."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def recorded(path: Path) -> Built | None:
    """The artefact as it was recorded when it was built, if it still has that size; else None."""
    try:
        digest, size = _sum_file(path).read_text().split()
        return Built(path, digest) if path.stat().st_size == int(size) else None
    except (OSError, ValueError):
        return None


def once(path: Path, make: Callable[[Path], None]) -> Built:
    """The artefact at `path`: reused when its bytes are those recorded, else made under another name and renamed.

    `path` must name its inputs (see `key`), since they are not compared again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent / ".lock"):
        known = recorded(path)
        if known is not None and file_digest(path) == known.digest:
            return known
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            make(partial)
            built = Built(path, file_digest(partial))
            # The record comes first: a crash in between leaves a record without its file, which is built again.
            _write_whole(_sum_file(path), f"{built.digest} {partial.stat().st_size}\n".encode())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return built


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, remedy: str = "") -> str:
    """What the program printed; a PaddockError of kind SET_UP with its last lines when it fails or is not there."""
    try:
        done = subprocess.run(
            list(argv), env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise PaddockError(ErrorKind.SET_UP, f"{argv[0]}: {error.strerror}", remedy=remedy) from None
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_MESSAGE_LINES:])
        raise PaddockError(ErrorKind.SET_UP, f"{argv[0]} ended with {done.returncode}: {last}", remedy=remedy)
    return done.stdout


def tool(name: str, package: str) -> str:
    """The absolute path of a program; a PaddockError that names its Debian package when it is missing."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise PaddockError(ErrorKind.SET_UP, f"{name} is not installed", remedy=f"apt-get install {package}")
    return found


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sum")


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
