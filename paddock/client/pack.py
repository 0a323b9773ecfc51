"""Inputs as one tar: the same files give the same bytes, and nothing in it leads out of its place."""

import hashlib
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Final

from paddock.client.errors import BadSpec
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.spec import InputRef

MAX_MEMBERS: Final = 500_000


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed input: what the spec says about it, and the open file that will be sent."""

    ref: InputRef
    file: IO[bytes]


class _Hashing(BufferedIOBase):
    """Writes through to a file, hashing and counting on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        self.hash.update(data)
        self.size += len(data)
        return self._file.write(data)


def _wrong(what: str, where: object, remedy: str = "") -> BadSpec:
    return BadSpec(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=f"inputs: {what}", field=str(where), remedy=remedy))


def _member(name: str, path: Path, root: PurePosixPath) -> tarfile.TarInfo:
    """The header of one file, with nothing of this machine in it; raises BadSpec for what may not travel."""
    try:
        found = path.lstat()
    except OSError as wrong:
        raise _wrong(wrong.strerror or "cannot be read", path) from wrong
    info = tarfile.TarInfo(name)
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(path)
        reached = PurePosixPath(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
        inside = not target.startswith("/") and ".." not in reached.parts and reached.is_relative_to(root)
        if not inside:
            raise _wrong(f"a link leads out of its tree, to {target}", path, "copy the file in its place")
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISREG(found.st_mode):
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
    else:
        raise _wrong("only files, directories and links travel; this is a device, pipe or socket", path)
    return info


def _walk(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """A tree in one order on every machine, parents before children, links never followed."""
    if name != ".":
        yield name, path
    if path.is_dir() and not path.is_symlink():
        try:
            children = sorted(os.listdir(path))
        except OSError as wrong:
            raise _wrong(wrong.strerror or "cannot be read", path) from wrong
        for child in children:
            yield from _walk(child if name == "." else f"{name}/{child}", path / child)


def _guest_name(name: str) -> str:
    clean = PurePosixPath(name)
    if clean.is_absolute() or ".." in clean.parts or not name or "\0" in name:
        raise _wrong("a guest path is relative to /work, without '..'", name or "''")
    return str(clean)


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in reversed(PurePosixPath(name).parents) if str(parent) != "."]


def _fill(archive: tarfile.TarFile, inputs: Mapping[str, Path]) -> None:
    seen: set[str] = set()
    for given, local in sorted(inputs.items()):
        root = _guest_name(given)
        if not local.exists():
            raise _wrong("no such file or directory", local)
        start = local.resolve() if local.is_symlink() else local
        for parent in _parents(root):
            if parent not in seen:
                seen.add(parent)
                folder = tarfile.TarInfo(parent)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(folder)
        if root == "." and not start.is_dir():
            raise _wrong("only a directory can become /work itself", local, f"name it, for example {local.name!r}")
        for name, path in _walk(root, start):
            info = _member(name, path, PurePosixPath(root))
            if name in seen:
                if info.isdir():
                    continue
                raise _wrong("two inputs have the same place", name)
            seen.add(name)
            if len(seen) > MAX_MEMBERS:
                raise _wrong(f"more than {MAX_MEMBERS} files", local)
            try:
                if info.isreg():
                    with path.open("rb") as content:
                        archive.addfile(info, content)
                else:
                    archive.addfile(info)
            except OSError as wrong:
                raise _wrong(wrong.strerror or f"changed while it was read ({wrong})", path) from wrong


@contextmanager
def packed(inputs: Mapping[str, Path]) -> Iterator[Packed]:
    """A tar of `inputs` (guest path below /work → local file or directory) in a temporary file, gone with the block.

    Order, times, owners and all but the executable bit are the same everywhere. `"."` is /work itself. Raises BadSpec
    for what is missing, unreadable, a device, or a link that leads out.
    """
    with tempfile.TemporaryFile(prefix="paddock-input-") as file:
        through = _Hashing(file)
        with tarfile.open(fileobj=through, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _fill(archive, inputs)
        file.seek(0)
        digest = "sha256:" + through.hash.hexdigest()
        yield Packed(InputRef(digest=digest, bytes=through.size), file)
