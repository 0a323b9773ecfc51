"""The plugin that client, workers and tests share."""

from pydantic import ValidationError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.plugin import SimplePlugin


def plugin() -> SimplePlugin:
    """Models cross as JSON, and input that no model accepts fails the run at once with pydantic's own words.

    Without the second, a workflow with bad input stays open for ever, retrying its first task. Give the plugin to a
    client only: its workers inherit it.
    """
    return SimplePlugin(
        "paddock",
        data_converter=pydantic_data_converter,
        workflow_failure_exception_types=[ValidationError],
    )
