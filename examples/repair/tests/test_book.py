import unittest
from decimal import Decimal

from ledger.book import Book, Entry


class Books(unittest.TestCase):
    def test_a_new_book_is_empty(self):
        Book("first").add("rent", "-700")
        self.assertEqual(Book("second").entries, [])

    def test_a_book_may_begin_with_entries(self):
        book = Book("kept", [Entry("carried over", Decimal(5))])
        book.add("found", "2.50")
        self.assertEqual(book.total(), Decimal("7.50"))

    def test_the_total_of_an_empty_book_is_nought(self):
        self.assertEqual(Book("empty", []).total(), Decimal(0))
