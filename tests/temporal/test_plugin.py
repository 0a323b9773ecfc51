"""The plugin: models cross as JSON, also those with secrets in them, and what no model accepts is said in words."""

import pytest
from pydantic import ValidationError
from temporalio.contrib.pydantic import pydantic_data_converter

from paddock.contracts.spec import SandboxSpec, TaskSpec
from paddock.temporal.plugin import plugin


async def test_a_spec_crosses_whole_and_an_empty_object_is_one() -> None:
    spec = SandboxSpec(task=TaskSpec(argv=("echo", "ü\n")), lifetime_s=60)
    payloads = await pydantic_data_converter.encode([spec, {}])
    assert await pydantic_data_converter.decode(payloads, [SandboxSpec, SandboxSpec]) == [spec, SandboxSpec()]


async def test_an_unknown_field_is_named_where_it_is() -> None:
    [payload] = await pydantic_data_converter.encode([{"task": {"argv": ["x"], "tiemout_s": 3}}])
    with pytest.raises((ValidationError, RuntimeError)) as caught:
        await pydantic_data_converter.decode([payload], [SandboxSpec])
    assert "tiemout_s" in str(caught.value) + str(caught.value.__cause__)


def test_bad_input_fails_the_run_at_once_instead_of_its_task_for_ever() -> None:
    made = plugin()
    assert made.name() == "paddock"
    assert made.data_converter is pydantic_data_converter
    assert ValidationError in (made.workflow_failure_exception_types or ())  # type: ignore[operator]
