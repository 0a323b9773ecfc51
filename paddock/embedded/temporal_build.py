"""Building the Temporal server with Go, from the module `infra/temporal` that pins every byte of it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.build import Built, key, once, recorded, run
from paddock.embedded.progress import Say
from paddock.embedded.toolchain import environment, find_go, needed_release

_PACKAGE: Final = "github.com/temporalio/cli/cmd/temporal"
_REMEDY: Final = "run `make setup` again: it goes on where it stopped; or name one with --temporal"


def build_path(cache: Path, module: Path) -> Path:
    """Where the program built from `module` is kept: by the CLI's version and the content of go.mod and go.sum."""
    text = (module / "go.mod").read_text()
    found = re.search(r"^\s*github\.com/temporalio/cli (v\S+)", text, re.MULTILINE)
    version = found.group(1).removeprefix("v") if found else "0"
    return cache / "temporal" / f"{version}-{key(text, (module / 'go.sum').read_bytes())}" / "temporal"


def build(cache: Path, module: Path, say: Say) -> Built:
    """Builds the program unless its bytes are there already; raises PaddockError SET_UP with Go's last words."""
    path = build_path(cache, module)
    if (known := recorded(path)) is not None:
        return known
    go = find_go(cache, needed_release(module), say)
    scratch = cache / "temporal" / ".go"
    env = environment(go, scratch)
    version = path.parent.name.split("-")[0]
    flags = f"-s -w -X github.com/temporalio/cli/internal/temporalcli.Version={version}"

    def make(partial: Path) -> None:
        say("fetching Go modules", None)
        listed = run([str(go.program), "list", "-deps", _PACKAGE], env=env, cwd=module, remedy=_REMEDY)
        argv = [str(go.program), "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", flags]
        _compile([*argv, "-o", str(partial), _PACKAGE], env, module, len(listed.splitlines()), say)

    built = once(path, make)
    shutil.rmtree(scratch, ignore_errors=True)
    return built


def _compile(argv: list[str], env: dict[str, str], module: Path, total: int, say: Say) -> None:
    """Runs Go, which names each package it has compiled on its error stream."""
    last: list[str] = []
    with subprocess.Popen(
        argv,
        env=env,
        cwd=module,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for count, line in enumerate(process.stderr, start=1):
            last = [*last[-7:], line.rstrip()]
            say("compiling the server", min(1.0, count / max(1, total)))
    if process.returncode != 0:
        raise PaddockError(
            ErrorKind.SET_UP, f"Go could not build the Temporal server: {' / '.join(last)}", remedy="look at `go env`"
        )
