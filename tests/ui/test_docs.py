"""docs/ui.md shows pictures that are there, few and small, and says of each handler that the workflow has it."""

import re
from pathlib import Path

from temporalio import workflow

from workflows.sandbox import Sandbox

DOCS = Path(__file__).resolve().parents[2] / "docs"
LARGEST_BYTES, MOST = 150 << 10, 8
PNG = b"\x89PNG\r\n\x1a\n"


def manual() -> str:
    return (DOCS / "ui.md").read_text()


def test_every_picture_is_shown_once_and_every_shown_one_is_there() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(ui/([a-z]+\.png)\)", manual())
    assert sorted(shown) == sorted(path.name for path in (DOCS / "ui").iterdir())
    assert 0 < len(shown) <= MOST


def test_every_picture_is_small() -> None:
    for picture in (DOCS / "ui").iterdir():
        assert picture.read_bytes().startswith(PNG), picture.name
        assert picture.stat().st_size <= LARGEST_BYTES, f"{picture.name}: clip it, or show less"


def test_the_manual_names_every_update_and_every_query() -> None:
    definition = workflow._Definition.must_from_class(Sandbox)
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", manual(), re.MULTILINE))
    assert {str(name) for name in (*definition.updates, *definition.queries)} <= rows
