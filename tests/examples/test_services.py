"""docs/services.md: every command on that page, run as it stands there, prints what the page says."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.embedded import temporal_binary, toolchain
from paddock.embedded.assets import cache_dir
from tests.e2e.conftest import Up
from tests.examples.conftest import BUILD, ROOT, must, run

pytestmark = pytest.mark.vm

PAGE = (ROOT / "docs" / "services.md").read_text()
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NEEDS = {"Go": "go", "TypeScript": "npm"}


def blocks() -> Iterator[tuple[str, str, str, str]]:
    """Section, language, code and the words that it must print, for each block of the page."""
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        for language, code, words in BLOCK.findall(section):
            yield section.split("\n", 1)[0], language, code, words


BLOCKS = list(blocks())


def test_every_block_of_code_is_tried() -> None:
    assert len(BLOCKS) == PAGE.count("\n```sh\n") + PAGE.count("\n```python\n")
    assert {section for section, *_ in BLOCKS} >= {"Python", "Command line", "Temporal CLI", "Go", "TypeScript"}


@pytest.fixture
def environ(up: Up, address: str, tmp_path: Path) -> dict[str, str]:
    """What a reader has: the programs on PATH, and a server that is named."""
    temporal = tmp_path / "temporal"
    temporal.symlink_to(temporal_binary.load(cache_dir()).path)
    path = os.pathsep.join((str(Path(sys.executable).parent), str(tmp_path), os.environ["PATH"]))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL", "PADDOCK"))},
        "PATH": path,
        "PADDOCK_STATE": str(up.state),
        "TEMPORAL_ADDRESS": address,
        "SCRATCH": str(tmp_path),
        "NO_COLOR": "1",
    }


@pytest.mark.parametrize(
    ("section", "language", "code", "words"), BLOCKS, ids=[f"{n}-{block[0]}" for n, block in enumerate(BLOCKS)]
)
def test_it_does_what_the_page_says(
    section: str, language: str, code: str, words: str, environ: dict[str, str], tmp_path: Path
) -> None:
    _have(section, environ)
    if language == "python":
        script = tmp_path / "script.py"
        script.write_text(code)
        done = must(run(sys.executable, script, env=environ, cwd=tmp_path, timeout=300))
        assert done.stdout == words
        return
    done = must(run("bash", "-c", _strict(code), env=environ, timeout=900))
    for line in words.splitlines():
        said = re.sub(r"\s+", " ", done.stdout + done.stderr)
        assert re.sub(r"\s+", " ", line) in said, f"{line!r} is not in what it printed:\n{done.stdout}{done.stderr}"


def _strict(code: str) -> str:
    """Each line must succeed, or fail where the page says `!`."""
    lines = [
        f"if {line.removeprefix('! ')}; then echo {shlex.quote('it should have failed: ' + line)} >&2; exit 1; fi"
        if line.startswith("! ")
        else line
        for line in code.splitlines()
    ]
    return "\n".join(["set -euo pipefail", *lines])


def _have(section: str, environ: dict[str, str]) -> None:
    """The tool of a section, on PATH; skips with the reason where there is none."""
    if section == "Go":
        source = ROOT / "examples" / "go"
        found = toolchain.find_go(cache_dir(), toolchain.needed_release(source), lambda words, share: None)
        environ |= toolchain.environment(found, BUILD / "go-cache")
        environ["PATH"] = (
            f"{found.program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        )
    if section in NEEDS and not shutil.which(NEEDS[section], path=environ["PATH"]):
        pytest.skip(f"no {NEEDS[section]} here: `bash packaging/node.sh` installs Debian's")
