import unittest
from decimal import Decimal

from ledger.amounts import parse_amount, show_amount


class Amounts(unittest.TestCase):
    def test_a_plain_amount_is_read(self):
        self.assertEqual(parse_amount(" 12.50 "), Decimal("12.50"))

    def test_a_negative_amount_is_read(self):
        self.assertEqual(parse_amount("-3"), Decimal(-3))

    def test_thousands_may_be_set_apart(self):
        self.assertEqual(parse_amount("1,250.00"), Decimal("1250.00"))

    def test_what_is_shown_can_be_read_again(self):
        self.assertEqual(parse_amount(show_amount(Decimal("1234567.89"))), Decimal("1234567.89"))
