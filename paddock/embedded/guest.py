"""The guest agent: one static Go program, built from `guest/`."""

from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.build import Built, Progress, key, once, quiet, run
from paddock.embedded.toolchain import environment, find_go, needed_release

_RECIPE = "2"
_REMEDY = "the guest agent's modules come through Go's own configuration (go env GOPROXY): it must reach them once"


def build(cache: Path, source: Path, progress: Progress = quiet) -> Built:
    """The agent's executable, reproducible from `source` and the Go release: no paths, no times, no C."""
    if not (source / "go.mod").is_file():
        raise PaddockError(ErrorKind.SET_UP, f"the guest agent's source is not in {source}", remedy="run it in a clone")
    go = find_go(cache, needed_release(source), progress)
    path = cache / "agent" / f"agent-{key(_RECIPE, repr(go.release), *_inputs(source))}"

    def make(partial: Path) -> None:
        progress("building the guest agent", None)
        argv = [str(go.program), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="]
        env = environment(go, cache / "go-work") | {"GOOS": "linux", "GOARCH": "amd64"}
        run([*argv, "-o", str(partial), "."], env=env, cwd=source, remedy=_REMEDY)

    return once(path, make)


def _inputs(source: Path) -> list[bytes]:
    """Names and contents of all that the compiler reads."""
    files = sorted(path for path in source.glob("*.go") if not path.name.endswith("_test.go"))
    files += [source / "go.mod", source / "go.sum"]
    return [part for path in files for part in (path.name.encode(), path.read_bytes())]
