"""The JSON Schema of every model in paddock/contracts, as committed in golden/; `make golden` writes them again.

A change that breaks callers is refused there too: raise API_VERSION, or say PADDOCK_BREAK=1 before the first release.
"""

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel

import paddock.contracts
from paddock.contracts.spec import API_VERSION, SandboxSpec
from tests.contracts.compat import Change, Compare, Schema

GOLDEN = Path(__file__).with_name("golden")
CALLERS: Final = {"spec", "report", "status", "policies", "streams", "errors", "fleet"}
"""The modules whose models callers write or read; the others are between Paddock's own processes."""
ANSWERED: Final = {"report", "status", "errors"}
ANSWERED_MODELS: Final = {"HostWord", "PolicyApplied", "CleanupReport", "Row"}


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


def for_callers(model: type[BaseModel]) -> bool:
    return model.__module__.rpartition(".")[2] in CALLERS


def place(model: type[BaseModel]) -> Path:
    """Where a model's schema is committed: what callers speak, and what Paddock's own processes speak."""
    return GOLDEN / ("callers" if for_callers(model) else "inside") / f"{model.__name__}.json"


def committed(model: type[BaseModel]) -> Schema | None:
    path = place(model)
    return json.loads(path.read_text()) if path.exists() else None


def changes(model: type[BaseModel], before: Schema, after: Schema) -> list[Change]:
    """What differs between two schemas of a model, each with whether it breaks those who speak it."""
    room = model.__module__.rpartition(".")[2]
    answered = room in ANSWERED or model.__name__ in ANSWERED_MODELS
    return Compare(before, after, answered).changes(model.__name__)


def verdict(model: type[BaseModel], found: list[Change], version: str) -> str:
    """What to do about a model that is not the committed one; `version` is the committed API version."""
    breaking = [change for change in found if change.breaking]
    said = "".join(f"\n  {change}" for change in breaking or found)
    if breaking and for_callers(model) and version == API_VERSION:
        return (
            f"{model.__name__} breaks callers of {API_VERSION}:{said}\n"
            f"Add an optional field beside it instead, or raise API_VERSION in paddock/contracts/spec.py."
        )
    if breaking and not for_callers(model):
        return (
            f"{model.__name__} breaks hosts of the release before, and histories that run:{said}\n"
            f"Add a field with a default instead; if nothing of that release can still run, run `make golden`."
        )
    if not found:
        return f"{model.__name__}: only its words changed: run `make golden` and commit."
    return f"{model.__name__} changed, compatibly: run `make golden` and commit.{said}"


def committed_version() -> str:
    """The API version of the committed schemas."""
    path = place(SandboxSpec)
    found = json.loads(path.read_text())["properties"].get("api_version") if path.exists() else None
    return str(found["default"]) if found else ""


def breaks_callers() -> list[str]:
    """The verdicts of models that would break callers of the committed version."""
    said = []
    for model in models():
        before = committed(model)
        if before is None or not for_callers(model) or committed_version() != API_VERSION:
            continue
        found = changes(model, before, json.loads(schema(model)))
        if any(change.breaking for change in found):
            said.append(verdict(model, found, API_VERSION))
    here = {place(model) for model in models()}
    gone = sorted(path.stem for path in (GOLDEN / "callers").glob("*.json") if path not in here)
    return said + ([f"gone, which breaks callers of {API_VERSION}: {', '.join(gone)}"] if gone else [])


def write() -> int:
    """Writes the schemas; refuses (1) what breaks callers of the committed version, unless PADDOCK_BREAK=1 says so."""
    broken = breaks_callers()
    if broken and os.environ.get("PADDOCK_BREAK") != "1":
        print("\n".join(broken), "\nNothing was written.", file=sys.stderr)
        return 1
    for old in GOLDEN.rglob("*.json"):
        old.unlink()
    for model in models():
        place(model).parent.mkdir(parents=True, exist_ok=True)
        place(model).write_text(schema(model))
    return 0


if __name__ == "__main__":
    sys.exit(write())
