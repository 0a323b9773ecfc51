"""Both wheels: what they hold, and that they run a sandbox where there is no repository."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

HEAVY = ("uvloop", "httptools", "re2", "hvac", "yaml", "publicsuffixlist", "worker", "workflows")
ROOT = Path(__file__).resolve().parents[2]
SETUP_S = 900


def sh(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 300) -> str:
    done = subprocess.run(
        [str(one) for one in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("wheels")
    sh(sys.executable, ROOT / "packaging" / "wheels.py", out, cwd=out)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def tops(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name.split("/")[0] for name in archive.namelist() if ".dist-info/" not in name}


def test_the_library_installs_no_top_level_name_but_its_own(wheels: dict[str, Path]) -> None:
    assert tops(wheels["paddock"]) == {"paddock"}


def test_the_second_wheel_holds_the_other_four_and_the_parts_to_build(wheels: dict[str, Path]) -> None:
    assert tops(wheels["paddock_worker"]) == {"workflows", "activities", "providers", "worker"}
    with zipfile.ZipFile(wheels["paddock_worker"]) as archive:
        names = set(archive.namelist())
    assert {"worker/_parts/guest/go.mod", "worker/_parts/infra/temporal/go.sum"} <= names


def test_the_library_tells_type_checkers_that_it_is_typed(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["paddock"]) as archive:
        assert "paddock/py.typed" in archive.namelist()


def test_both_wheels_have_the_same_version(wheels: dict[str, Path]) -> None:
    assert len({path.name.split("-")[1] for path in wheels.values()}) == 1


def test_without_a_python_that_is_new_enough_make_says_what_is_missing(tmp_path: Path) -> None:
    """A machine without apt-get whose only Python is 3.9: nothing is made, exit code 2, and words."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "id", "sha256sum"):
        (programs / name).symlink_to(shutil.which(name) or "")
    (programs / "python3").write_text("#!/bin/bash\nexit 1\n")
    (programs / "python3").chmod(0o755)
    for name in ("requirements", "packaging"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run(
        [programs / "bash", tmp_path / "packaging" / "venv.sh"],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.fixture(scope="module")
def elsewhere(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the two wheels and what they require by hash, far from the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    sh(*pip, "--require-hashes", "-r", ROOT / "requirements" / "host.txt", cwd=folder)
    sh(*pip, "--no-deps", *wheels.values(), cwd=folder)
    return folder


def bare(folder: Path) -> dict[str, str]:
    """The environment of a person who never saw the repository: empty caches, nothing of this run's Python."""
    dropped = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "COVERAGE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}


def test_the_wheels_agree_with_what_they_require(elsewhere: Path) -> None:
    sh(elsewhere / "venv" / "bin" / "python", "-m", "pip", "check", cwd=elsewhere)


def test_the_client_is_importable_without_anything_of_the_host(
    wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("client")
    code = f"""
import sys
sys.path.insert(0, {str(wheels["paddock"])!r})
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import paddock.client
assert paddock.__file__.startswith({str(wheels["paddock"])!r}), paddock.__file__
"""
    sh(sys.executable, "-I", "-c", code, cwd=folder)


@pytest.mark.vm
def test_the_wheels_alone_set_a_machine_up_and_run_a_sandbox(elsewhere: Path) -> None:
    program, env = elsewhere / "venv" / "bin" / "paddock", bare(elsewhere)
    sh(program, "setup", "--yes", cwd=elsewhere, env=env, timeout_s=SETUP_S)
    said = sh(program, "run", "--json", "--", "echo", "hello", cwd=elsewhere, env=env, timeout_s=120)
    report = json.loads(said.splitlines()[-1])
    assert report["outcome"] == "succeeded"
    assert report["receipts"]
    assert all(one["gone"] == "proved" for one in report["receipts"])
