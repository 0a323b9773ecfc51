"""What a change of a model's JSON Schema means for those who speak to it: compatible, or a break, in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference at one place; `breaking` when somebody who relied on the older schema would fail."""

    path: str
    words: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.words}"


@dataclass(frozen=True, slots=True)
class Compare:
    """Two schemas of one model; `answered` when callers read the model, else they write it."""

    before: Schema
    after: Schema
    answered: bool = False

    def changes(self, path: str) -> list[Change]:
        """Every difference that is more than a title or a description."""
        return list(self._walk(self.before, self.after, path))

    def _walk(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        yield from _default(old, new, path)
        before, after = _alternatives(old, self.before), _alternatives(new, self.after)
        for kind in before.keys() - after.keys():
            if kind == "integer" and "number" in after:
                yield Change(path, "takes any number, no longer integers only", self.answered)
            else:
                yield Change(path, f"is no longer {kind}", True)
        for kind in after.keys() - before.keys():
            if kind != "number" or "integer" not in before:
                yield Change(path, f"may also be {kind}", self.answered)
        for kind in sorted(before.keys() & after.keys()):
            yield from self._one(before[kind], after[kind], path)

    def _one(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        yield from _values(old, new, path)
        yield from _bounds(old, new, path)
        for word in ("pattern", "format", "prefixItems"):
            if old.get(word) != new.get(word):
                yield Change(path, f"{word} is {new.get(word)!r}, was {old.get(word)!r}", word in new)
        yield from self._properties(old, new, path)
        for word, below in (("items", "[]"), ("additionalProperties", ".*")):
            was, is_ = old.get(word, True), new.get(word, True)
            if isinstance(was, dict) and isinstance(is_, dict):
                yield from self._walk(was, is_, path + below)
            elif was != is_:
                yield Change(path, f"{word} is {is_!r}, was {was!r}", is_ is False or isinstance(is_, dict))

    def _properties(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed_before, needed = set(old.get("required", ())), set(new.get("required", ()))
        added = after.keys() - before.keys()
        for name in before.keys() - after.keys():
            same = [other for other in added if _bare(after[other]) == _bare(before[name])]
            yield Change(f"{path}.{name}", f"field removed{f', or renamed to {same[0]}' if same else ''}", True)
        for name in sorted(added):
            words = "new field, required" if name in needed else "new field, optional"
            yield Change(f"{path}.{name}", words, name in needed)
        for name in sorted(before.keys() & after.keys()):
            if name in needed - needed_before:
                yield Change(f"{path}.{name}", "is required now", True)
            if name in needed_before - needed:
                yield Change(f"{path}.{name}", "is no longer required", self.answered)
            yield from self._walk(before[name], after[name], f"{path}.{name}")


def _default(old: Schema, new: Schema, path: str) -> Iterator[Change]:
    was, is_ = old.get("default", _NOTHING), new.get("default", _NOTHING)
    if was is not _NOTHING and is_ is not _NOTHING and was != is_:
        yield Change(path, f"default is {is_!r}, was {was!r}", True)


def _values(old: Schema, new: Schema, path: str) -> Iterator[Change]:
    was, is_ = _enum(old), _enum(new)
    if was is None and is_ is not None:
        yield Change(path, f"takes {is_} only", True)
    elif was is not None and is_ is None:
        yield Change(path, "takes any value", False)
    elif was is not None and is_ is not None:
        if gone := [one for one in was if one not in is_]:
            yield Change(path, f"value removed: {', '.join(map(str, gone))}", True)
        if more := [one for one in is_ if one not in was]:
            yield Change(path, f"new value: {', '.join(map(str, more))} (an older reader does not know it)", False)


def _enum(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[Change]:
    for word in (*_LOWER, *_UPPER):
        was, is_ = old.get(word), new.get(word)
        if was != is_:
            tighter = is_ is not None and (was is None or (is_ > was if word in _LOWER else is_ < was))
            yield Change(path, f"{word} is {is_}, was {was}", tighter)


def _alternatives(schema: Schema, root: Schema) -> dict[str, Schema]:
    """What a value may be, by kind; objects of a union are told apart by their titles."""
    schema = _resolved(schema, root)
    union = schema.get("anyOf") or schema.get("oneOf")
    if union is None:
        return {str(schema.get("type", "any")): schema}
    options = [_resolved(one, root) for one in union]
    objects = sum(one.get("type") == "object" for one in options)
    return {_kind(one, objects > 1): one for one in options}


def _kind(option: Schema, several: bool) -> str:
    kind = str(option.get("type", "any"))
    return f"{kind} {option.get('title', '')}" if several and kind == "object" else kind


def _resolved(schema: Schema, root: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return found


def _bare(schema: Schema) -> Schema:
    return {word: value for word, value in schema.items() if word not in {"title", "description"}}
