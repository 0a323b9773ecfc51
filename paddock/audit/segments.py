"""The spool's files, for whoever reads them: numbered segments of interleaved chains, and one chain out of them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddock.audit.event import MAX_LINE_BYTES, Line


def segment_path(directory: Path, number: int) -> Path:
    """File of segment `number` (from 1) of the recorder's directory."""
    return directory / "spool" / f"{number:08d}.ndjson"


def saved_path(directory: Path, number: int) -> Path:
    """File with every chain's state at the start of segment `number`."""
    return directory / "spool" / f"{number:08d}.heads"


def checkpoint_path(directory: Path, sandbox: str) -> Path:
    """The newest checkpoint of a chain that is not sealed."""
    return directory / "checkpoints" / sandbox


def segments(directory: Path) -> list[int]:
    """Numbers of the segments there are, oldest first."""
    return sorted(int(path.stem) for path in (directory / "spool").glob("*.ndjson") if path.stem.isdigit())


def complete_lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of each complete line from byte `start`; a tail without newline is left out."""
    with path.open("rb") as file:
        file.seek(start)
        offset = start
        while True:
            line = file.readline(MAX_LINE_BYTES + 2)
            if not line.endswith(b"\n"):
                return
            yield offset, line[:-1]
            offset += len(line)


def chain_lines(directory: Path, sandbox: str, numbers: Iterable[int] | None = None, start: int = 0) -> Iterator[bytes]:
    """The lines of one chain, in order, from the segments `numbers` (default: all), the first from byte `start`."""
    needle = f'"sandbox":"{sandbox}"'.encode()
    for index, number in enumerate(segments(directory) if numbers is None else sorted(numbers)):
        for _, line in complete_lines(segment_path(directory, number), 0 if index else start):
            # A detail may hold the same text; the parsed field decides.
            if needle in line and Line.model_validate_json(line).sandbox == sandbox:
                yield line


def sync_directory(path: Path) -> None:
    """Make names that were added to or removed from a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` whole or not at all (0600); durable: on disk when this returns."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        sync_directory(path.parent)
