"""The Temporal server: the program on PATH, else the SDK's own download, else built from `infra/temporal` with Go."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.progress import Say
from paddock.embedded.resources import TEMPORAL, resource
from paddock.embedded.temporal_build import build

OLDEST_SERVER: Final = (1, 29)
STALLED_S: Final = 20.0
DOWNLOAD_S: Final = 300.0
_RECORD: Final = "temporal.json"
_REMEDY: Final = "run `make setup`"


class Origin(StrEnum):
    """Where the program came from."""

    NAMED = "named"
    PATH = "path"
    DOWNLOAD = "download"
    BUILT = "built"


class TemporalBinary(Strict):
    """A program that starts the development server, and the server's version."""

    path: str
    server: str
    origin: Origin


def load(cache: Path) -> TemporalBinary:
    """The program that set-up chose; raises PaddockError SET_UP when there is none or it is gone."""
    try:
        record = TemporalBinary.model_validate_json((cache / _RECORD).read_bytes())
    except (OSError, ValidationError):
        raise PaddockError(ErrorKind.SET_UP, f"no Temporal server in {cache}", remedy=_REMEDY) from None
    if not os.access(record.path, os.X_OK):
        raise PaddockError(ErrorKind.SET_UP, f"{record.path} is not there any more", remedy=_REMEDY)
    return record


def provide(cache: Path, say: Say, *, named: Path | None = None) -> TemporalBinary:
    """Finds, downloads or builds the program, and records it. A named one is taken or refused, never replaced."""
    binary = _named(named) if named else _on_path() or _kept(cache) or _downloaded(cache, say) or _built(cache, say)
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{_RECORD}.partial"
    partial.write_text(binary.model_dump_json(indent=2) + "\n")
    partial.replace(cache / _RECORD)
    return binary


def server_version(program: Path) -> str | None:
    """The server's version in the words of the program, None when it is no Temporal CLI."""
    try:
        words = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\(Server (\d+(?:\.\d+)+)", words)
    return found.group(1) if found else None


def _usable(program: Path, origin: Origin) -> TemporalBinary | None:
    version = server_version(program)
    if version is None or tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
        return None
    return TemporalBinary(path=str(program), server=version, origin=origin)


def _named(program: Path) -> TemporalBinary:
    if usable := _usable(program.absolute(), Origin.NAMED):
        return usable
    oldest = ".".join(map(str, OLDEST_SERVER))
    raise PaddockError(
        ErrorKind.SET_UP, f"{program} is no Temporal CLI with a server of {oldest} or newer", field="temporal"
    )


def _on_path() -> TemporalBinary | None:
    found = shutil.which("temporal")
    return _usable(Path(found).absolute(), Origin.PATH) if found else None


def _kept(cache: Path) -> TemporalBinary | None:
    try:
        before = load(cache)
    except PaddockError:
        return None
    return _usable(Path(before.path), before.origin) if before.origin in {Origin.DOWNLOAD, Origin.BUILT} else None


# The SDK's downloader answers only after it has started the server once; a process of its own can be given up.
_DOWNLOADER: Final = """
import asyncio, sys
from temporalio.testing import WorkflowEnvironment
async def main():
    await (await WorkflowEnvironment.start_local(download_dest_dir=sys.argv[1])).shutdown()
asyncio.run(main())
"""


def _downloaded(cache: Path, say: Say) -> TemporalBinary | None:
    """The SDK's own download; None when its host cannot be reached or nothing has arrived for 20 s."""
    folder = cache / "temporal" / "download"
    folder.mkdir(parents=True, exist_ok=True)
    say("the SDK's own download", None)
    process = subprocess.Popen(
        [sys.executable, "-c", _DOWNLOADER, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        arrived = _wait_while_growing(process, folder)
    finally:
        _end(process)
    if not arrived:
        say("the download's host cannot be reached", None)
        return None
    found = [file for file in folder.iterdir() if os.access(file, os.X_OK) and file.is_file()]
    return next((usable for file in found if (usable := _usable(file, Origin.DOWNLOAD))), None)


def _wait_while_growing(process: subprocess.Popen[bytes], folder: Path) -> bool:
    began = moved = time.monotonic()
    size = 0
    while True:
        try:
            return process.wait(0.2) == 0
        except subprocess.TimeoutExpired:
            now, grown = time.monotonic(), sum(file.stat().st_size for file in folder.iterdir())
        if grown > size:
            size, moved = grown, now
        if now - moved > STALLED_S or now - began > DOWNLOAD_S:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _built(cache: Path, say: Say) -> TemporalBinary:
    """Built by Go from the pinned module: about four minutes and 3.4 GB of Go's caches, once."""
    built = build(cache, resource(TEMPORAL), say)
    if usable := _usable(built.path, Origin.BUILT):
        return usable
    raise PaddockError(ErrorKind.SET_UP, f"{built.path} was built, but does not run", remedy="remove it and try again")
