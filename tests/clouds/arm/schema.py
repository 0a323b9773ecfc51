"""Bodies held against the SDK's own models: unknown keys, wrong types, wrong words, and what only Azure may say."""

import functools
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from types import ModuleType
from typing import Any

Hint = Any
# The SDK says of these that the list is old.
_OLD_WORDS = {"VirtualMachineSizeTypes"}


def problems(models: ModuleType, model: str, body: object, *, request: bool) -> list[str]:
    """What is wrong with a body that shall be this model; a request must not say what is read-only."""
    return list(_model(models, getattr(models, model), body, "", request))


@functools.cache
def _fields(models: ModuleType, model: type) -> dict[str, tuple[Hint, bool]]:
    """By name on the wire: the type, and whether only answers have it."""
    model.__new__(model)  # the SDK fills in the wire's names at the first use
    hints = typing.get_type_hints(model, localns={"_models": models})
    return {
        field._rest_name: (hints[name], field._visibility == ["read"])
        for name, field in model._attr_to_rest_field.items()  # type: ignore[attr-defined]
        if name in hints
    }


def _model(models: ModuleType, model: type, body: object, at: str, request: bool) -> Iterator[str]:
    if not isinstance(body, dict):
        yield f"{at or model.__name__}: {_kind(body)} instead of an object"
        return
    fields = _fields(models, model)
    for key, value in body.items():
        where = f"{at}.{key}" if at else key
        if key not in fields:
            yield f"{where}: {model.__name__} has no such member"
            continue
        hint, read_only = fields[key]
        if read_only and request:
            yield f"{where}: read-only"
        yield from _value(models, hint, value, where, request)


def _value(models: ModuleType, hint: Hint, value: object, at: str, request: bool) -> Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        yield from _union(models, arguments, value, at, request)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: {_kind(value)} instead of a list"
            return
        for index, one in enumerate(value):
            yield from _value(models, arguments[0], one, f"{at}[{index}]", request)
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{at}: {_kind(value)} instead of an object"
            return
        for key, one in value.items():
            yield from _value(models, arguments[1], one, f"{at}[{key!r}]", request)
    elif isinstance(hint, type):
        yield from _plain(models, hint, value, at, request)


def _union(models: ModuleType, arguments: tuple[Hint, ...], value: object, at: str, request: bool) -> Iterator[str]:
    wanted = [one for one in arguments if one is not type(None)]
    enums = [one for one in wanted if isinstance(one, type) and issubclass(one, Enum)]
    if value is None and len(wanted) < len(arguments):
        return
    if enums:  # the SDK takes any string beside an enum, as a newer service may have more words
        words = [member.value for one in enums for member in one]
        old = any(one.__name__ in _OLD_WORDS for one in enums) and isinstance(value, str)
        if value not in words and not old:
            yield f"{at}: {value!r} is none of {', '.join(map(str, words))}"
        return
    tries = [list(_value(models, one, value, at, request)) for one in wanted]
    if all(tries):
        yield from tries[0]


def _plain(models: ModuleType, hint: type, value: object, at: str, request: bool) -> Iterator[str]:
    if hasattr(hint, "_attr_to_rest_field") or hint.__module__.startswith(models.__name__):
        yield from _model(models, hint, value, at, request)
    elif hint is datetime:
        if not isinstance(value, str) or not _is_time(value):
            yield f"{at}: {value!r} instead of a time"
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{at}: {_kind(value)} instead of a number"
    elif hint in {str, int, bool} and type(value) is not hint:
        yield f"{at}: {_kind(value)} instead of {hint.__name__}"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
