"""One thing that the doctor looked at."""

from enum import StrEnum

from paddock.contracts.base import Wire


class Health(StrEnum):
    """`missing` keeps sandboxes from running; `weak` means that they run with less speed or less separation."""

    FINE = "fine"
    WEAK = "weak"
    MISSING = "missing"


class Finding(Wire):
    """One thing looked at: how it stands, what was seen, and the command that improves it."""

    name: str
    health: Health
    seen: str
    remedy: str = ""
