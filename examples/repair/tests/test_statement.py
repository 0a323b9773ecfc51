import unittest
from decimal import Decimal

from ledger.book import Book
from ledger.statement import balances, statement


class Statements(unittest.TestCase):
    def setUp(self):
        self.book = Book("household", [])
        self.book.add("wages", "2000")
        self.book.add("rent", "-700")
        self.book.add("food", "-250.25")

    def test_the_balance_runs_from_the_first_entry_on(self):
        self.assertEqual(balances(self.book), [Decimal(2000), Decimal(1300), Decimal("1049.75")])

    def test_the_last_balance_is_the_total(self):
        self.assertEqual(balances(self.book)[-1], self.book.total())

    def test_every_entry_has_its_line(self):
        lines = statement(self.book).splitlines()
        self.assertEqual(len(lines), 4)
        self.assertTrue(lines[1].endswith("2,000.00      2,000.00"))
