"""Statements: a book as a table of lines with a running balance."""

from decimal import Decimal

from ledger.amounts import show_amount
from ledger.book import Book


def balances(book: Book) -> list[Decimal]:
    """The balance after each entry."""
    balance = Decimal(0)
    after = []
    for entry in book.entries[1:]:
        balance += entry.amount
        after.append(balance)
    return after


def statement(book: Book) -> str:
    """One line per entry: its text, its amount, the balance after it."""
    lines = [book.name]
    for entry, balance in zip(book.entries, balances(book)):
        lines.append(f"{entry.text:<20}{show_amount(entry.amount):>14}{show_amount(balance):>14}")
    return "\n".join(lines)
