"""What crosses a boundary changes only in a diff that a reviewer sees, and never so that callers break unawares."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from paddock.contracts.base import Strict, Wire
from paddock.contracts.hosts import Boot
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import API_VERSION, SandboxSpec
from tests.contracts import schemas
from tests.contracts.compat import Schema
from tests.contracts.schemas import GOLDEN, changes, committed, committed_version, models, place, schema, verdict

MODELS = list(models())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_schema_is_the_committed_one(model: type[BaseModel]) -> None:
    before = committed(model)
    assert before is not None, f"{model.__name__} is new: run `make golden` and commit."
    if schema(model) != place(model).read_text():
        pytest.fail(verdict(model, changes(model, before, json.loads(schema(model))), committed_version()), False)


def test_no_golden_file_is_left_of_a_model_that_is_gone() -> None:
    left = set(GOLDEN.rglob("*.json")) - {place(model) for model in MODELS}
    assert not left, "these models are gone: callers break without those of callers/; else run `make golden`"


def test_every_model_is_strict_or_wire() -> None:
    assert all(issubclass(model, Strict | Wire) for model in MODELS)


def test_the_specs_schema_refuses_unknown_fields() -> None:
    found = committed(SandboxSpec)
    assert found is not None
    assert found["additionalProperties"] is False
    assert "required" not in found, "{} must be a working spec"


def test_an_empty_spec_works_and_an_unknown_field_is_named() -> None:
    assert SandboxSpec.model_validate({}).image == "base"
    with pytest.raises(ValidationError, match="imagee") as caught:
        SandboxSpec.model_validate({"imagee": "s3cret-value"})
    assert "s3cret-value" not in str(caught.value)


def test_an_unknown_api_version_is_refused_and_the_known_ones_are_named() -> None:
    assert SandboxSpec().api_version == API_VERSION == "v1"
    with pytest.raises(ValidationError, match="this Paddock speaks v1"):
        SandboxSpec(api_version="v2")


# Each kind of change, planted


Plant = Callable[[Schema], object]


def _field(found: Schema, name: str) -> Schema:
    field: Schema = found["properties"][name]
    return field


BREAKING: dict[str, tuple[Plant, str]] = {
    "removed": (lambda s: s["properties"].pop("idle_s"), "SandboxSpec.idle_s: field removed"),
    "renamed": (
        lambda s: s["properties"].__setitem__("rest_s", s["properties"].pop("idle_s")),
        "SandboxSpec.idle_s: field removed, or renamed to rest_s",
    ),
    "type narrowed": (lambda s: _field(s, "owner").update(type="integer"), "SandboxSpec.owner: is no longer string"),
    "null refused": (lambda s: _field(s, "caller_key")["anyOf"].pop(), "SandboxSpec.caller_key: is no longer null"),
    "bound tightened": (lambda s: _field(s, "priority").update(maximum=4), "SandboxSpec.priority: maximum is 4, was 5"),
    "pattern": (lambda s: _field(s, "owner").update(pattern="^a"), "SandboxSpec.owner: pattern is '^a', was None"),
    "below a reference": (
        lambda s: s["$defs"]["Shape"]["properties"]["vcpu"].update(maximum=8),
        "SandboxSpec.shape.vcpu: maximum is 8, was 16",
    ),
    "new field, required": (
        lambda s: s.update(properties={**s["properties"], "team": {"type": "string"}}, required=["team"]),
        "SandboxSpec.team: new field, required",
    ),
    "required": (lambda s: s.update(required=["image"]), "SandboxSpec.image: is required now"),
    "value removed": (lambda s: _field(s, "api_version").update(enum=["v0"]), "value removed: v1"),
    "default": (
        lambda s: _field(s, "policy").update(default="allow-all"),
        "SandboxSpec.policy: default is 'allow-all'",
    ),
    "item narrowed": (
        lambda s: s["$defs"]["InputRef"]["properties"].pop("path"),
        "SandboxSpec.inputs[].path: field removed",
    ),
}
COMPATIBLE: dict[str, tuple[Plant, str]] = {
    "new field, optional": (
        lambda s: s["properties"].__setitem__("team", {"type": "string", "default": ""}),
        "SandboxSpec.team: new field, optional",
    ),
    "bound loosened": (lambda s: _field(s, "priority").update(maximum=9), "SandboxSpec.priority: maximum is 9, was 5"),
    "type widened": (
        lambda s: _field(s, "owner").update(anyOf=[{"type": "string", "maxLength": 128}, {"type": "null"}]),
        "SandboxSpec.owner: may also be null",
    ),
    "value added": (lambda s: _field(s, "api_version")["enum"].append("v2"), "new value: v2"),
    "words": (lambda s: s.update(description="Other words."), "only its words changed"),
}


@pytest.mark.parametrize("kind", BREAKING)
def test_a_change_that_breaks_callers_says_so_and_what_to_do(kind: str) -> None:
    plant, words = BREAKING[kind]
    said = _verdict(SandboxSpec, plant)
    assert said.startswith("SandboxSpec breaks callers of v1:")
    assert words in said
    assert "Add an optional field beside it instead, or raise API_VERSION" in said


@pytest.mark.parametrize("kind", COMPATIBLE)
def test_a_compatible_change_says_make_golden(kind: str) -> None:
    plant, words = COMPATIBLE[kind]
    said = _verdict(SandboxSpec, plant)
    assert "run `make golden` and commit." in said
    assert words in said
    assert "breaks" not in said


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda s: s["$defs"]["Outcome"]["enum"].remove("stopped"), "SandboxReport.outcome: value removed: stopped"),
        (
            lambda s: s["properties"].__setitem__("host", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
            "SandboxReport.host: may also be null",
        ),
        (lambda s: s["required"].remove("outcome"), "SandboxReport.outcome: is no longer required"),
    ],
)
def test_an_answer_that_may_be_more_breaks_its_readers(plant: Plant, words: str) -> None:
    said = _verdict(SandboxReport, plant)
    assert said.startswith("SandboxReport breaks callers of v1:")
    assert words in said


def test_a_break_between_our_own_processes_says_who_breaks() -> None:
    said = _verdict(Boot, lambda s: s["properties"].pop("image"))
    assert said.startswith("Boot breaks hosts of the release before, and histories that run:")


def test_a_raised_version_may_break() -> None:
    said = _verdict(SandboxSpec, BREAKING["removed"][0], version="v0")
    assert "breaks" not in said
    assert "run `make golden`" in said


def test_make_golden_does_not_write_what_breaks_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schemas, "GOLDEN", tmp_path)
    monkeypatch.delenv("PADDOCK_BREAK", raising=False)
    assert schemas.write() == 0
    spec = schemas.place(SandboxSpec)
    relied_on = json.loads(spec.read_text())
    relied_on["properties"]["color"] = {"type": "string", "default": ""}
    spec.write_text(json.dumps(relied_on))
    assert schemas.write() == 1
    assert "SandboxSpec.color: field removed" in capsys.readouterr().err
    assert json.loads(spec.read_text()) == relied_on
    (tmp_path / "callers" / "Relied.json").write_text("{}")
    assert schemas.write() == 1
    assert "gone, which breaks callers of v1: Relied" in capsys.readouterr().err
    monkeypatch.setenv("PADDOCK_BREAK", "1")
    assert schemas.write() == 0
    assert spec.read_text() == schema(SandboxSpec)


def _verdict(model: type[BaseModel], plant: Plant, version: str = API_VERSION) -> str:
    before = json.loads(schema(model))
    after = copy.deepcopy(before)
    plant(after)
    return verdict(model, changes(model, before, after), version)
