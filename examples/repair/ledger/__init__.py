"""Books of entries: amounts, entries, statements."""
