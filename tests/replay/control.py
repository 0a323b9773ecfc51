"""How the control worker runs its workflows, read from its own source: the same list and runner for every replay."""

import ast
import inspect
from typing import Any, Final

from worker import control

PLACE: Final = "worker/control.py"
SHARED: Final = ("workflows", "workflow_runner", "workflow_failure_exception_types", "interceptors")


def settings() -> dict[str, Any]:
    """The keywords of the control worker's `Worker(...)` that decide how a workflow runs.

    Raises LookupError when that call cannot be found, or a keyword there names what the module does not know.
    """
    tree = ast.parse(inspect.getsource(control))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Worker"):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if "workflows" in given:
                return {name: _value(name, given[name]) for name in SHARED if name in given}
    raise LookupError(f"{PLACE}: no `Worker(..., workflows=...)` to read its workflows from")


def _value(name: str, expression: ast.expr) -> Any:
    try:
        return eval(compile(ast.Expression(expression), PLACE, "eval"), vars(control))
    except NameError as wrong:
        given = f"{name}={ast.unparse(expression)}"
        raise LookupError(f"{PLACE}: {given} must be readable from the module: {wrong}") from wrong


def name_of(workflow: type) -> str:
    """The name that a workflow's class is served under."""
    return str(workflow.__temporal_workflow_definition.name)  # type: ignore[attr-defined]


def served() -> list[str]:
    """Names of the workflows that the control worker serves."""
    return sorted(map(name_of, settings()["workflows"]))
