"""Decoys of a secret, planted in each place that is searched: a scan that misses one proves nothing by its silence."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda value: value,
    "base64": lambda value: base64.b64encode(b"user:" + value),
    "hex": lambda value: value.hex().encode(),
    "percent": lambda value: urllib.parse.quote(value, safe="").encode(),
    "utf-16": lambda value: value.decode().encode("utf-16-le"),
}
HOLD = "import sys; value = bytes.fromhex(sys.stdin.readline()); print('held', flush=True); sys.stdin.read()"
GUEST = (
    "import hashlib, sys; "
    "open(sys.argv[2], 'w').write('decoy-' + hashlib.sha256(sys.argv[1].encode()).hexdigest()); print('planted')"
)


def decoy_value(seed: str) -> bytes:
    """The decoy that `guest_command(seed)` makes inside a guest: nobody else ever sends it there."""
    return b"decoy-" + hashlib.sha256(seed.encode()).hexdigest().encode()


def guest_command(seed: str, path: str = "/tmp/decoy") -> list[str]:
    """Argument vector that plants `decoy_value(seed)` in a file of the guest that runs it, and so in its memory."""
    return ["python3", "-c", GUEST, seed, path]


@contextlib.contextmanager
def in_memory_of_a_monitor(data: bytes, directory: Path) -> Iterator[int]:
    """A process that holds the data in memory only, and whose program is named like QEMU; gives its pid."""
    program = directory / "qemu-system-decoy"
    shutil.copy(os.path.realpath(sys.executable), program)
    env = {"PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([program, "-S", "-c", HOLD], env=env, **pipes) as child:  # type: ignore[call-overload]
        child.stdin.write(data.hex().encode() + b"\n")
        child.stdin.flush()
        if child.stdout.readline() != b"held\n":
            raise RuntimeError("the decoy's process does not hold it")
        try:
            yield child.pid
        finally:
            child.stdin.close()
            child.wait(10)
    program.unlink()


@contextlib.contextmanager
def in_an_environment(value: str) -> Iterator[int]:
    """A process with the value in its environment; gives its pid."""
    with subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], "DECOY": value}) as child:
        try:
            yield child.pid
        finally:
            child.kill()


@contextlib.contextmanager
def in_a_file(data: bytes, path: Path) -> Iterator[Path]:
    """A file with the data in its middle."""
    path.write_bytes(os.urandom(5_000_000) + data + os.urandom(1000))
    try:
        yield path
    finally:
        path.unlink()
