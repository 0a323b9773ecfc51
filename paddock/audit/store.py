"""Sealed evidence: one directory a sandbox with its whole chain and the checkpoint over it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from paddock.audit.segments import sync_directory

CHAIN = "chain.ndjson"
CHECKPOINT = "checkpoint"


def sealed_path(directory: Path, sandbox: str) -> Path:
    """Where the evidence of a sandbox is once it is sealed, below the recorder's directory."""
    return directory / "sealed" / sandbox


def is_sealed(directory: Path, sandbox: str) -> bool:
    """Whether this sandbox's chain has been closed for good."""
    return (sealed_path(directory, sandbox) / CHECKPOINT).is_file()


def sealed(directory: Path) -> list[str]:
    """Sandboxes whose evidence is here, in the order of their ends."""
    paths = [path for path in (directory / "sealed").glob("*") if (path / CHECKPOINT).is_file()]
    return [path.name for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]


def write_sealed(directory: Path, sandbox: str, lines: Iterable[bytes], note: str) -> Path:
    """Put a chain and its checkpoint in their place, whole and durable, or not at all; raises OSError."""
    target = sealed_path(directory, sandbox)
    making = target.with_name(f".{sandbox}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    with (making / CHAIN).open("xb") as chain:
        os.fchmod(chain.fileno(), 0o640)
        for line in lines:
            chain.write(line + b"\n")
        chain.flush()
        os.fsync(chain.fileno())
    with (making / CHECKPOINT).open("x") as checkpoint:
        os.fchmod(checkpoint.fileno(), 0o640)
        checkpoint.write(note)
        checkpoint.flush()
        os.fsync(checkpoint.fileno())
    # The host's worker verifies what is sealed, by the group that comes from the set-gid directory; changing the mode
    # of one takes that bit away, so it comes last.
    making.chmod(0o750)
    sync_directory(making)
    making.rename(target)
    sync_directory(target.parent)
    return target
