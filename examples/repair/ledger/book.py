"""A book: a name and its entries."""

from dataclasses import dataclass
from decimal import Decimal

from ledger.amounts import parse_amount


@dataclass(frozen=True)
class Entry:
    """One line of a book."""

    text: str
    amount: Decimal


class Book:
    """Entries in the order they were made."""

    def __init__(self, name: str, entries: list[Entry] = []) -> None:
        self.name = name
        self.entries = entries

    def add(self, text: str, amount: str) -> Entry:
        """Write one entry; the amount as people write it."""
        entry = Entry(text, parse_amount(amount))
        self.entries.append(entry)
        return entry

    def total(self) -> Decimal:
        """Sum of all entries."""
        return sum((entry.amount for entry in self.entries), Decimal(0))
