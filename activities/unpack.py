"""A tar that a guest wrote, taken apart on the host: hostile bytes, so only plain files, counted and bounded."""

import asyncio
import tarfile
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Final, Self

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.report import OutputFile
from paddock.host.objects import ObjectStore

MAX_FILES = 10_000
MAX_OTHERS = 10  # entries of any other kind (folders, links), as a multiple of MAX_FILES
MAX_EXTENSION = 1 << 20
HEADERS_BYTES = 8 << 20
CHUNK = 1 << 18
_EXTENSIONS: Final = frozenset(
    (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)


class _Member(tarfile.TarInfo):
    """One header, refused where the library would read backwards or take an unbounded extension into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENSIONS and member.size > MAX_EXTENSION):
            raise tarfile.ReadError(f"an entry of {member.size} bytes")
        return member


async def to_objects(
    archive: AsyncIterator[bytes], objects: ObjectStore, sandbox_id: str, max_bytes: int
) -> list[OutputFile]:
    """Each regular file becomes an object; raises PaddockError OUTPUT_LIMIT past `max_bytes` or `MAX_FILES`."""
    with tempfile.TemporaryFile() as spool:
        size = 0
        async for chunk in archive:
            size += len(chunk)
            if size > max_bytes + HEADERS_BYTES:
                raise _too_much(max_bytes)
            await asyncio.to_thread(spool.write, chunk)
        spool.seek(0)
        return await _files(spool, objects, sandbox_id, max_bytes)


async def _files(spool: IO[bytes], objects: ObjectStore, sandbox_id: str, max_bytes: int) -> list[OutputFile]:
    files: list[OutputFile] = []
    left, others = max_bytes, 0
    try:
        with tarfile.open(fileobj=spool, mode="r:", tarinfo=_Member) as archive:
            for member in archive:
                await asyncio.sleep(0)  # heartbeats go on
                if not member.isreg():
                    others += 1
                    if others > MAX_OTHERS * MAX_FILES:
                        raise _too_much(max_bytes)
                    continue
                left -= member.size
                if left < 0 or len(files) >= MAX_FILES:
                    raise _too_much(max_bytes)
                source = archive.extractfile(member)
                assert source
                with objects.writer(sandbox_id) as writer:
                    while chunk := source.read(CHUNK):
                        writer.write(chunk)
                        await asyncio.sleep(0)
                    size = writer.written
                    files.append(OutputFile(path=_safe(member.name), digest=writer.commit(), bytes=size))
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as wrong:
        raise PaddockError(
            ErrorKind.GUEST_VIOLATION, f"the guest's archive of outputs is malformed: {wrong}"
        ) from wrong
    return files


def _safe(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or len(name) > 4096:
        raise PaddockError(ErrorKind.GUEST_VIOLATION, f"an output's name leaves the tree: {name[:80]!r}")
    return "/".join(part for part in parts if part not in ("", "."))


def _too_much(max_bytes: int) -> PaddockError:
    return PaddockError(
        ErrorKind.OUTPUT_LIMIT,
        f"the outputs are more than {max_bytes} bytes or {MAX_FILES} files",
        field="outputs",
        remedy="narrow the glob, or raise its max_bytes",
    )
