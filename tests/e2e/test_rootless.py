"""Without root: the same run as another user, with the lesser separation that docs/limits.md describes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.embedded.assets import cache_dir
from tests.e2e.conftest import PADDOCK

NOBODY = 65534
pytestmark = pytest.mark.vm


def as_nobody(*argv: str, **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, **more)  # type: ignore[call-overload,no-any-return]


def test_a_sandbox_runs_without_root_and_leaves_every_receipt(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: every other test runs without root already")
    try:
        readable = as_nobody(sys.executable, "-c", "import paddock").returncode == 0
    except PermissionError:
        readable = False
    if not readable:
        pytest.skip("this interpreter lies where no other user may read it")
    home = tmp_path / "home"
    shutil.copytree(cache_dir(), home / ".cache/paddock", ignore=shutil.ignore_patterns("templates"))
    for path in (home, *home.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = as_nobody(PADDOCK, "run", "--", "sh", "-c", "echo hello; id -u", env=environment, cwd=home, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n1000\n"
    assert "unproved" not in done.stderr
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _uid(pid) == NOBODY]


def _uid(pid: str) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return -1
