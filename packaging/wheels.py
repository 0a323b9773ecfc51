"""Builds both wheels, `paddock` and `paddock-worker`, and looks into them: `python packaging/wheels.py [FOLDER]`."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER_FOLDERS = ("workflows", "activities", "providers", "worker")
PARTS = ("guest", "infra/temporal", "agents")
ALLOWED = {
    "paddock": {"paddock"},
    "paddock_worker": {*WORKER_FOLDERS},
}


def main() -> int:
    """Exit code 1 when a wheel holds a top-level name that it must not."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "build/wheels").absolute()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="paddock-wheels-") as scratch:
        tree = _copy(Path(scratch))
        for project in (tree, tree / "packaging" / "worker"):
            argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(project)]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    bad = [line for wheel in sorted(out.glob("*.whl")) for line in strangers(wheel)]
    for wheel in sorted(out.glob("*.whl")):
        print(f"{wheel}  {wheel.stat().st_size >> 10} KiB")
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


def strangers(wheel: Path) -> list[str]:
    """What a wheel holds at its top beside its own packages, and what must be in none: caches."""
    name = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {entry.split("/")[0] for entry in names if ".dist-info/" not in entry}
    found = [f"{wheel.name}: top-level {top!r}" for top in sorted(tops - ALLOWED[name])]
    return found + [f"{wheel.name}: {entry}" for entry in names if "__pycache__" in entry or entry.endswith(".pyc")]


def _copy(scratch: Path) -> Path:
    """The sources alone: a build must not see, nor leave, anything in the working tree."""
    tree = scratch / "paddock-source"
    tree.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.test", "testdata")
    for name in ("paddock", *WORKER_FOLDERS, *PARTS, "packaging"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy2(ROOT / name, tree / name)
    return tree


if __name__ == "__main__":
    sys.exit(main())
