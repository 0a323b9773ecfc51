"""`python -m tests.ui.shots` makes the pictures of docs/ui.md anew: it runs the tests and keeps what they saw."""

import os
import sys
from pathlib import Path

import pytest

from tests.ui.conftest import SHOTS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "ui"


def main() -> int:
    """Exit code of the tests; the pictures are those of this run."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ[SHOTS] = str(FOLDER)
    code = pytest.main(["-q", str(Path(__file__).with_name("test_ui.py"))])
    for picture in sorted(FOLDER.glob("*.png")):
        print(f"{picture.name:14} {picture.stat().st_size / 1024:6.1f} KiB")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
