"""A bounded YAML reader: text to a tree of nodes that know their line and column, and nothing of YAML's extras.

Aliases, anchors, tags and merge keys are refused: they let a document say something other than its reader sees, and
aliases make small documents huge. Scalars stay text, so no YAML 1.1 surprise (`no`, `0777`, `22:22`) changes a value.
"""

from dataclasses import dataclass, field

import yaml

from paddock.policy.problems import Problem

MAX_BYTES = 1 << 19
MAX_DEPTH = 16
MAX_NODES = 100_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value as written; `plain` when it had no quotes."""

    line: int
    column: int
    value: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    line: int
    column: int
    items: list["Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values, in the order of the document; a repeated key is already reported."""

    line: int
    column: int
    entries: dict[str, tuple[Scalar, "Node"]] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def read(text: str) -> tuple[Node | None, list[Problem]]:
    """The tree of one document and what is wrong with its YAML; no tree when it cannot be read at all. Never raises."""
    if len(text) > MAX_BYTES:
        return None, [Problem(1, 1, f"the document is longer than {MAX_BYTES >> 10} KiB")]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        return None, [Problem(line, 1, "the document is not valid Unicode")]
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if not builder.take(event):
                break
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "cannot be read"
        return None, [*builder.problems, Problem(line, column, f"not YAML: {what}")]
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        column = len(before) - (before.rfind("\n") + 1) + 1
        return None, [Problem(before.count("\n") + 1, column, f"not YAML: {error.reason}")]
    except yaml.YAMLError as error:
        return None, [*builder.problems, Problem(1, 1, f"not YAML: {type(error).__name__}")]
    if builder.root is None and not builder.problems:
        builder.problems.append(Problem(1, 1, "the document is empty"))
    return (None if builder.fatal else builder.root), builder.problems


class _Builder:
    """Turns parser events into nodes with a stack of its own, so depth never becomes recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.fatal = False
        self._stack: list[Sequence | Mapping] = []
        self._keys: list[Scalar | None] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> bool:
        """False when reading must stop."""
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    return self._stop(line, column, "a second document begins here; a file holds one policy")
            case yaml.AliasEvent():
                return self._stop(line, column, "YAML aliases are not allowed; write the value out")
            case yaml.ScalarEvent():
                self._plainness(event, line, column)
                return self._add(Scalar(line, column, event.value, event.style in (None, "")))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._plainness(event, line, column)
                node = Mapping(line, column) if isinstance(event, yaml.MappingStartEvent) else Sequence(line, column)
                if not self._add(node):
                    return False
                if len(self._stack) >= MAX_DEPTH:
                    return self._stop(line, column, f"nested deeper than {MAX_DEPTH} levels")
                self._stack.append(node)
                self._keys.append(None)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._stack.pop()
                self._keys.pop()
        return True

    def _plainness(self, event: yaml.NodeEvent, line: int, column: int) -> None:
        if event.anchor is not None:
            self.problems.append(Problem(line, column, "YAML anchors are not allowed"))
        if getattr(event, "tag", None) is not None:
            self.problems.append(Problem(line, column, "YAML tags are not allowed"))

    def _add(self, node: Node) -> bool:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._stop(node.line, node.column, f"more than {MAX_NODES} values")
        if not self._stack:
            self.root = node
            return True
        parent = self._stack[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
            return True
        key = self._keys[-1]
        if key is None:
            if not isinstance(node, Scalar):
                return self._stop(node.line, node.column, "a key must be a plain name")
            self._keys[-1] = node
            return True
        self._keys[-1] = None
        if key.value in parent.entries:
            first = parent.entries[key.value][0].line
            self.problems.append(
                Problem(key.line, key.column, f"{shown(key.value)} is given twice, first on line {first}")
            )
        else:
            parent.entries[key.value] = (key, node)
        return True

    def _stop(self, line: int, column: int, message: str) -> bool:
        self.problems.append(Problem(line, column, message))
        self.fatal = True
        return False


def shown(value: str) -> str:
    """A value of the document as an error may show it: short, quoted, without control characters."""
    short = value if len(value) <= 60 else value[:57] + "..."
    return "'" + "".join(c if c.isprintable() else "?" for c in short) + "'"
