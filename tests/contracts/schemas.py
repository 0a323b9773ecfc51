"""The JSON Schema of every model in paddock/contracts, as committed in golden/; `make golden` writes them again."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

import paddock.contracts

GOLDEN = Path(__file__).with_name("golden")


def models() -> Iterator[type[BaseModel]]:
    """Every model that a module of paddock/contracts defines, by name; the bases say nothing by themselves."""
    found: dict[str, type[BaseModel]] = {}
    for info in pkgutil.iter_modules(paddock.contracts.__path__):
        module = importlib.import_module(f"paddock.contracts.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__:
                found[value.__name__] = value
    return (found[name] for name in sorted(found) if name not in {"Strict", "Wire"})


def schema(model: type[BaseModel]) -> str:
    """The model's JSON Schema as text that diffs well."""
    return json.dumps(model.model_json_schema(mode="validation"), indent=1, sort_keys=True) + "\n"


def write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.json"):
        old.unlink()
    for model in models():
        (GOLDEN / f"{model.__name__}.json").write_text(schema(model))


if __name__ == "__main__":
    write()
