"""`make check`: everything that can be said about the code without running it; under two minutes.

Every part runs, whatever the ones before it said; the exit code is 1 when one of them failed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GO_MODULES = ("guest",)
PYTEST = ("-q", "-p", "no:cacheprovider", "--no-header")


def main() -> int:
    """Runs each part and prints its words only when it fails."""
    began, failed = time.monotonic(), []
    for name, argv, cwd in parts():
        at = time.monotonic()
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_env())
        took = time.monotonic() - at
        print(f"  {'ok' if done.returncode == 0 else 'FAILED':<6} {name:<24} {took:5.1f} s", flush=True)
        if done.returncode != 0:
            failed.append(name)
            print("\n".join(f"         {line}" for line in (done.stdout + done.stderr).splitlines()[-60:]), flush=True)
    for what in skipped():
        print(f"  skip   {what}")
    print(
        f"  check: {len(failed)} failed in {time.monotonic() - began:.1f} s"
        + (f": {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def parts() -> Iterator[tuple[str, list[str], Path]]:
    """Name, command and folder of each part that this machine can do."""
    yield "ruff check", [str(BIN / "ruff"), "check", "."], ROOT
    yield "ruff format", [str(BIN / "ruff"), "format", "--check", "."], ROOT
    yield "mypy --strict", [str(BIN / "mypy")], ROOT
    yield "import directions", [str(BIN / "lint-imports")], ROOT
    yield "house and golden files", [str(BIN / "pytest"), *PYTEST, "tests/test_house.py", "tests/contracts"], ROOT
    if go := shutil.which("go"):
        for module in GO_MODULES:
            yield f"go vet {module}", [go, "vet", "./..."], ROOT / module
            yield f"gofmt {module}", ["sh", "-c", f'test -z "$({Path(go).parent}/gofmt -l .)"'], ROOT / module
        yield "go.mod infra/temporal", [go, "mod", "edit", "-json"], ROOT / "infra" / "temporal"
    if terraform := shutil.which("terraform"):
        yield "terraform fmt", [terraform, "fmt", "-check", "-recursive"], ROOT / "infra" / "terraform"
    yield "shell syntax", ["bash", "-n", *[str(p) for p in (ROOT / "packaging").glob("*.sh")], ".ci/run"], ROOT


def skipped() -> Iterator[str]:
    """What this machine has no program for."""
    for program, what in (("go", "go vet, gofmt: no go on PATH"), ("terraform", "terraform fmt: no terraform on PATH")):
        if not shutil.which(program):
            yield what


def _env() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}


if __name__ == "__main__":
    sys.exit(main())
