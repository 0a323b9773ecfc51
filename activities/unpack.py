"""A tar that a guest wrote, taken apart on the host: hostile bytes, so only plain files, counted and bounded."""

import asyncio
import tarfile
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.report import OutputFile
from paddock.host.objects import ObjectStore

MAX_FILES = 10_000
HEADERS_BYTES = 8 << 20
CHUNK = 1 << 18


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
        return _files(spool, objects, sandbox_id, max_bytes)


def _files(spool: IO[bytes], objects: ObjectStore, sandbox_id: str, max_bytes: int) -> list[OutputFile]:
    files: list[OutputFile] = []
    left = max_bytes
    try:
        with tarfile.open(fileobj=spool, mode="r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                left -= member.size
                if left < 0 or len(files) >= MAX_FILES:
                    raise _too_much(max_bytes)
                source = archive.extractfile(member)
                assert source
                with objects.writer(sandbox_id) as writer:
                    while chunk := source.read(CHUNK):
                        writer.write(chunk)
                    size = writer.written
                    files.append(OutputFile(path=_safe(member.name), digest=writer.commit(), bytes=size))
    except (tarfile.TarError, ValueError, EOFError) as wrong:
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
