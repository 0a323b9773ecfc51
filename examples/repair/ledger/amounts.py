"""Amounts of money, as people write them."""

from decimal import Decimal


def parse_amount(text: str) -> Decimal:
    """The amount in a string such as `12.50`, `-3` or `1,250.00`; spaces around it are fine."""
    return Decimal(text.strip())


def show_amount(amount: Decimal) -> str:
    """The amount with thousands apart and two digits after the point."""
    return f"{amount:,.2f}"
