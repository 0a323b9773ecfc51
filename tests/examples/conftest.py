"""One `paddock up` for all examples, and each example built as its README says, below build/."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddock.embedded import toolchain
from paddock.embedded.assets import cache_dir
from tests.e2e.conftest import Up

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "examples"
OLDEST_NODE = 18
BUILD_S = 600
# What package managers say when they reach nobody; anything else that they say is a mistake of ours.
NO_NETWORK = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|dial tcp|i/o timeout|no such host")

Done = subprocess.CompletedProcess[str]
Program = Callable[..., Done]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    here = Up(tmp_path_factory.mktemp("state")).start()
    yield here
    assert here.stop() == 0


@pytest.fixture(scope="session")
def address(up: Up) -> str:
    return str(up.info["temporal"])


def run(*argv: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 120) -> Done:
    return subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )


def must(done: Done) -> Done:
    """Built, or skipped where nobody can be reached."""
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"the packages of an example cannot be fetched here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def speaking(address: str, *program: str | Path) -> Program:
    """A program that takes its server from TEMPORAL_ADDRESS, and nothing from this machine's own settings."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL", "PADDOCK"))}

    def start(*argv: str, at: str = address) -> Done:
        return run(*program, *argv, env={**environ, "TEMPORAL_ADDRESS": at})

    return start


@pytest.fixture(scope="session")
def go(address: str) -> Program:
    """The Go example."""
    source = ROOT / "examples" / "go"
    found = toolchain.find_go(cache_dir(), toolchain.needed_release(source), lambda words, share: None)
    environ, program = toolchain.environment(found, BUILD / "go-cache"), BUILD / "go-example"
    must(run(found.program, "mod", "download", cwd=source, env=environ, timeout=BUILD_S))
    must(run(found.program, "build", "-trimpath", "-o", program, ".", cwd=source, env=environ, timeout=BUILD_S))
    return speaking(address, program)


@pytest.fixture(scope="session")
def typescript(address: str) -> Program:
    """The TypeScript example, with its packages, in a copy below build/."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("no node and npm here: `bash packaging/node.sh` installs Debian's")
    version = run(node, "--version").stdout
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {OLDEST_NODE} or newer is needed, this is {version.strip()}")
    source = ROOT / "examples" / "typescript"
    files = sorted(path for path in source.rglob("*") if path.is_file())
    state = hashlib.sha256(b"\0".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()[:12]
    copy = BUILD / f"typescript-{state}"
    if not (copy / "built").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        must(run(npm, "ci", "--no-audit", "--no-fund", cwd=copy, timeout=BUILD_S))
        must(run(npm, "run", "build", cwd=copy, timeout=BUILD_S))
        (copy / "built").touch()
    return speaking(address, node, copy / "dist" / "main.js")


def receipts(done: Done) -> dict[str, str]:
    """Each resource that a program named, and how sure it is that it is gone."""
    return dict(re.findall(r"^receipt: (\S+) \S* ?(proved|implied_by_host|unproved): ", done.stdout, re.MULTILINE))


EVERYTHING = {"vm", "supervisor", "rundir", "socket", "disk", "slot", "credential"}


def all_gone(done: Done) -> bool:
    found = receipts(done)
    return found.keys() >= EVERYTHING and set(found.values()) == {"proved"}


def listed(up: Up, name: str) -> dict[str, object]:
    """A sandbox as `paddock sandbox show --json` has it."""
    found: dict[str, object] = json.loads(up.run("sandbox", "show", name, "--json", check=True).stdout)
    return found
