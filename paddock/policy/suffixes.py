"""Public suffixes, offline: a wildcard at or above one would cover names of strangers."""

from functools import lru_cache
from pathlib import Path

import publicsuffixlist


@lru_cache(maxsize=1)
def _suffixes() -> publicsuffixlist.PublicSuffixList:
    # Unknown top-level names count as suffixes, and the private section (github.io, …) counts: both refuse more.
    return publicsuffixlist.PublicSuffixList(accept_unknown=True, only_icann=False)


@lru_cache(maxsize=1)
def _above() -> frozenset[str]:
    """Every name that has a public suffix somewhere below it."""
    found: set[str] = set()
    for raw in Path(publicsuffixlist.PSLFILE).read_text(encoding="utf-8").splitlines():
        rule = raw.strip()
        if not rule or rule.startswith(("//", "!")):
            continue
        # `*.ck` makes every child of ck a suffix, so ck stands above suffixes: dropping one label is right for both.
        labels = rule.split(".")
        for start in range(1, len(labels)):
            parent = ".".join(labels[start:])
            found.add(parent)
            if not parent.isascii():
                found.add(parent.encode("idna").decode("ascii"))
    return frozenset(found)


def problem_of_wildcard(parent: str) -> str | None:
    """Why `*.parent` covers too much, or None; `parent` is a canonical name."""
    if _suffixes().is_public(parent):
        return f"'{parent}' is a public suffix: the names below it belong to different owners; write more of the name"
    if parent in _above():
        return f"public suffixes lie below '{parent}': its names belong to different owners; write more of the name"
    return None
