"""What crosses a boundary changes only in a diff that a reviewer sees."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from paddock.contracts.base import Strict, Wire
from paddock.contracts.spec import SandboxSpec
from tests.contracts.schemas import GOLDEN, models, schema

MODELS = list(models())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_schema_is_the_committed_one(model: type[BaseModel]) -> None:
    path = GOLDEN / f"{model.__name__}.json"
    assert path.exists(), f"{model.__name__} is new: `make golden` writes its schema"
    assert schema(model) == path.read_text(), f"{model.__name__} changed: breaking? if it is meant, run `make golden`"


def test_no_golden_file_is_left_of_a_model_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {model.__name__ for model in MODELS}


def test_every_model_is_strict_or_wire() -> None:
    assert all(issubclass(model, Strict | Wire) for model in MODELS)


def test_the_specs_schema_refuses_unknown_fields() -> None:
    committed = json.loads((GOLDEN / "SandboxSpec.json").read_text())
    assert committed["additionalProperties"] is False
    assert "required" not in committed, "{} must be a working spec"


def test_an_empty_spec_works_and_an_unknown_field_is_named() -> None:
    assert SandboxSpec.model_validate({}).image == "base"
    with pytest.raises(ValidationError, match="imagee") as caught:
        SandboxSpec.model_validate({"imagee": "s3cret-value"})
    assert "s3cret-value" not in str(caught.value)
