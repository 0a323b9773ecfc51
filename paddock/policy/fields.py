"""Typed access to a document's nodes that writes every fault down instead of stopping at the first."""

import difflib
import re

from paddock.policy.problems import Problem
from paddock.policy.tree import Mapping, Node, Scalar, Sequence, shown

_NUMBER = re.compile(r"[1-9][0-9]{0,17}|0")
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
Table = dict[str, tuple[Scalar, Node]]


class Fields:
    """Collects problems while a document is read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fault(self, node: Node, message: str) -> None:
        """Write a fault down at this node."""
        self.problems.append(Problem(node.line, node.column, message))

    def table(self, node: Node, what: str, *, required: str, optional: str = "", later: str = "") -> Table | None:
        """The entries of a mapping, after refusing unknown keys, keys of a later version and missing ones.

        The three lists are names separated by spaces.
        """
        if not isinstance(node, Mapping):
            self.fault(node, f"{what} must be a mapping with {_listed(required.split() or optional.split())}")
            return None
        known, not_yet = [*required.split(), *optional.split()], later.split()
        for name, (key, _) in node.entries.items():
            if name in not_yet:
                self.fault(key, f"{shown(name)} in {what}: not in this version")
            elif name not in known:
                near = difflib.get_close_matches(name[:60], [*known, *not_yet], 1)
                hint = f"; did you mean '{near[0]}'?" if near else f"; allowed: {_listed(known)}"
                self.fault(key, f"unknown field {shown(name)} in {what}{hint}")
        missing = [name for name in required.split() if name not in node.entries]
        if missing:
            self.fault(node, f"{what} lacks {_listed(missing)}")
        return {name: entry for name, entry in node.entries.items() if name in known}

    def items(self, table: Table, name: str, what: str, most: int, *, least: int = 1) -> list[Node]:
        """The values of a list of `least` to `most`; empty when the field is absent or no list."""
        if name not in table:
            return []
        node = table[name][1]
        if not isinstance(node, Sequence):
            self.fault(node, f"{what} must be a list")
            return []
        if not least <= len(node.items) <= most:
            self.fault(node, f"{what} must have {least} to {most} entries")
        return node.items[:most]

    def text(self, table: Table, name: str, what: str) -> Scalar | None:
        """The scalar of a field, or None, with the fault written down when it is not absent but something else."""
        return self.scalar(table[name][1], what) if name in table else None

    def scalar(self, node: Node, what: str) -> Scalar | None:
        """This node as a scalar with something in it."""
        if not isinstance(node, Scalar):
            self.fault(node, f"{what} must be one value, not a {type(node).__name__.lower()}")
            return None
        if node.value in _NOTHING and (node.plain or not node.value):
            self.fault(node, f"{what} is empty")
            return None
        return node

    def one_of(self, table: Table, name: str, what: str, allowed: str, later: str = "") -> str | None:
        """One word of a closed set (words separated by spaces); words of a later version are refused as such."""
        found = self.text(table, name, what)
        if found is None:
            return None
        if found.value in allowed.split():
            return found.value
        if found.value in later.split():
            self.fault(found, f"{what} {shown(found.value)}: not in this version; allowed: {_listed(allowed.split())}")
        else:
            self.fault(found, f"{what} must be {_listed(allowed.split(), 'or')}, not {shown(found.value)}")
        return None

    def name(self, table: Table, name: str, what: str, pattern: re.Pattern[str], rule: str) -> Scalar | None:
        """A scalar that matches a pattern; `rule` says the pattern in words."""
        found = self.text(table, name, what)
        if found is not None and not pattern.fullmatch(found.value):
            self.fault(found, f"{what} {shown(found.value)} must be {rule}")
            return None
        return found

    def number(self, table: Table, name: str, what: str, least: int, most: int) -> int | None:
        """A whole number written as such, in decimal and without quotes."""
        found = self.text(table, name, what)
        if found is None:
            return None
        if not found.plain or not _NUMBER.fullmatch(found.value) or not least <= int(found.value) <= most:
            self.fault(found, f"{what} must be a whole number from {least} to {most}, not {shown(found.value)}")
            return None
        return int(found.value)


def _listed(names: list[str], word: str = "and") -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" {word} {quoted[-1]}" if quoted else "nothing"
