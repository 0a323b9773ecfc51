"""The observer imports nothing of the product: a mistake there can't hide from it here."""

from __future__ import annotations

import ast
from pathlib import Path

PRODUCT = {"paddock", "workflows", "activities", "providers", "worker", "guest"}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names.add(node.module or "")
    return names


def test_no_module_of_the_observer_imports_the_product() -> None:
    files = sorted(Path(__file__).parent.glob("*.py"))
    assert len(files) > 6
    for file in files:
        for name in imported(file):
            top = name.split(".")[0]
            assert top not in PRODUCT, f"{file.name} imports {name}"
            assert top != "tests" or name.startswith("tests.observer"), f"{file.name} imports {name}"
