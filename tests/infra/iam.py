"""What AWS's IAM would decide by a set of policies: the part of its rules that the modules use, and no guess at more.

A request is allowed when some statement allows it and none denies it. An operator, or a part of a statement, that is
not known here is an error and not a no.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Context = Mapping[str, str]
Policy = Mapping[str, Any]
_PARTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "Condition"}


def allowed(policies: Sequence[Policy], action: str, resource: str, context: Context | None = None) -> bool:
    """Whether `action` on the ARN `resource` is allowed with these condition keys."""
    fitting = [
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if _fits(statement, action, resource, context or {})
    ]
    return "Allow" in fitting and "Deny" not in fitting


def _fits(statement: Policy, action: str, resource: str, context: Context) -> bool:
    if unknown := set(statement) - _PARTS:
        raise NotImplementedError(f"parts of a statement: {sorted(unknown)}")
    if "NotAction" in statement:
        fits = not any(_like(one, action, fold=True) for one in _list(statement["NotAction"]))
    else:
        fits = any(_like(one, action, fold=True) for one in _list(statement["Action"]))
    return (
        fits
        and any(_like(one, resource) for one in _list(statement["Resource"]))
        and all(
            _holds(operator, _value(key, context), _list(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _value(key: str, context: Context) -> str | None:
    """Names of condition keys have no case."""
    return next((value for name, value in context.items() if name.lower() == key.lower()), None)


def _holds(operator: str, said: str | None, wanted: Sequence[str]) -> bool:
    if operator == "Null":
        return (said is None) == (wanted[0] == "true")
    if operator.endswith("IfExists"):
        return said is None or _holds(operator.removesuffix("IfExists"), said, wanted)
    if operator not in {"StringEquals", "NumericEquals", "Bool", "ArnEquals"}:
        raise NotImplementedError(f"condition operator {operator}")
    if said is None:
        return False
    if operator == "ArnEquals":
        return any(_like(one, said) for one in wanted)
    return said in wanted


def _like(pattern: str, value: str, fold: bool = False) -> bool:
    if re.search(r"[\[\]]", pattern):
        raise NotImplementedError(f"brackets in {pattern}")
    return fnmatch.fnmatchcase(value.lower() if fold else value, pattern.lower() if fold else pattern)


def _list(said: str | Iterable[str]) -> list[str]:
    return [said] if isinstance(said, str) else list(said)
