"""Writes docs/audit-events.md from the catalogue."""

from paddock.audit.catalogue import document
from tests.audit.test_catalogue import DOCUMENT

if __name__ == "__main__":
    DOCUMENT.write_text(document())
