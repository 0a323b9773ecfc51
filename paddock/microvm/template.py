"""Templates on disk: what names one, how it is written at once or not at all, and its memory for clones to map."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.driver import Template

RAM: Final = "ram"
STATE: Final = "state"
_META: Final = "meta.json"
_FORMAT: Final = 1
_PAGE: Final = 4096
_PIECE: Final = 1 << 20
_ZERO: Final = bytes(_PAGE)


class Meta(Strict):
    """What a template's directory says about itself."""

    format: int
    key: str
    ram_bytes: int
    ram_digest: str
    state_digest: str


def make_key(**parts: str) -> str:
    """A name from everything that made a template; any other part, another name."""
    text = "\n".join(f"{name}={value!r}" for name, value in sorted(parts.items()))
    return hashlib.sha256(f"paddock-template {_FORMAT}\n{text}".encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(directory: Path, key: str) -> bool:
    """Whether `directory` holds the whole template `key`; a damaged one is removed. `open_memory` checks memory."""
    if not directory.exists():
        return False
    try:
        meta = _meta(directory)
        whole = meta.key == key and (directory / RAM).stat().st_size == meta.ram_bytes
        if whole and file_digest(directory / STATE) == meta.state_digest:
            return True
    except (OSError, ValidationError):
        pass
    shutil.rmtree(directory)
    return False


def save(directory: Path, key: str, memory_fd: int, write_state: Callable[[Path], object]) -> None:
    """Write the template into place in one rename: `memory_fd` is its memory, `write_state` writes the state file."""
    partial = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    try:
        write_state(partial / STATE)
        digest = _write_ram(memory_fd, partial / RAM)
        meta = Meta(
            format=_FORMAT,
            key=key,
            ram_bytes=os.fstat(memory_fd).st_size,
            ram_digest=digest,
            state_digest=file_digest(partial / STATE),
        )
        (partial / _META).write_text(meta.model_dump_json())
        with contextlib.suppress(FileExistsError, OSError):
            partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def new_memory(size_bytes: int) -> int:
    """An empty memfd of that size, for a template to boot in."""
    fd = os.memfd_create("paddock-template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    return fd


def open_memory(template: Template) -> int:
    """The template's memory in a sealed memfd, checked on the way; nobody who has it can change it, also not as root.

    Costs about 0.3 s and the memory that the template uses, once: clones map it privately. The caller closes it.
    """
    meta = _meta(template.directory)
    digest = hashlib.sha256()
    fd = new_memory(meta.ram_bytes)
    try:
        with (template.directory / RAM).open("rb") as file:
            for offset, data in _pieces(file.fileno()):
                _account(digest, offset, data)
                os.pwrite(fd, data, offset)
        if digest.hexdigest() != meta.ram_digest or os.fstat(fd).st_size != meta.ram_bytes:
            raise PaddockError(
                ErrorKind.SET_UP,
                f"the template in {template.directory} was changed",
                remedy="remove the directory; it is built again",
            )
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def building(directory: Path) -> Iterator[bool]:
    """Whether this process is the one that may build the template at `directory`; another holds it meanwhile if not."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _meta(directory: Path) -> Meta:
    return Meta.model_validate_json((directory / _META).read_bytes())


def _account(digest: "hashlib._Hash", offset: int, data: bytes) -> None:
    digest.update(offset.to_bytes(8, "little"))
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _pieces(fd: int) -> Iterator[tuple[int, bytes]]:
    """Runs of pages that are not all zero, within 1 MiB each: the same whatever holes the file system keeps."""
    size = os.fstat(fd).st_size
    piece = 0
    while piece < size:
        try:
            piece = os.lseek(fd, piece, os.SEEK_DATA) // _PIECE * _PIECE
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        data = os.pread(fd, _PIECE, piece)
        begin = None
        for at in range(0, len(data), _PAGE):
            empty = data[at : at + _PAGE] == _ZERO
            if empty and begin is not None:
                yield piece + begin, data[begin:at]
                begin = None
            elif not empty and begin is None:
                begin = at
        if begin is not None:
            yield piece + begin, data[begin:]
        piece += _PIECE


def _write_ram(memory_fd: int, path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        file.truncate(os.fstat(memory_fd).st_size)
        for offset, data in _pieces(memory_fd):
            _account(digest, offset, data)
            os.pwrite(file.fileno(), data, offset)
        os.fsync(file.fileno())
    return digest.hexdigest()
