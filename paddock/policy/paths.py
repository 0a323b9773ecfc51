"""Paths: the strict form a request's path must have, and globs over it.

Servers disagree about dot segments, doubled and encoded slashes, backslashes, path parameters and double encoding.
A path that any of them could read as another path is refused, so that what was decided is what is served.
"""

import re
from itertools import pairwise

MAX_PATH = 8192
MAX_GLOB = 1024
MAX_STARS = 16

# The common case, decided by one scan: only characters that mean the same to everyone, nothing encoded.
_SIMPLE = re.compile(r"/[A-Za-z0-9_~!$&'()*+,=:@/.-]{0,8000}+").fullmatch
_RAW = re.compile(r"(?:[A-Za-z0-9_~!$&'()*+,=:@/.-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[\x21\x22\x24-\x7e]*")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_DOUBLE = re.compile(r"%(?:[0-9A-Fa-f]{2}|[uU])")
# Decoded, these change the shape of a path for some server: separators, parameters, query, fragment, dots.
_SHAPING = frozenset("/\\;?#.")


def canonical(path: str) -> str | None:
    """The path that rules match (no query, percent decoded), or None when servers could differ about it."""
    if _SIMPLE(path) and "//" not in path and "/." not in path:
        return path
    return _decoded(path)


def _decoded(target: str) -> str | None:
    path, _, query = target.partition("?")
    if len(target) > MAX_PATH or not path.startswith("/") or not _RAW.fullmatch(path) or not _QUERY.fullmatch(query):
        return None
    try:
        plain = _ESCAPES.sub(_decode, path)
    except ValueError:
        return None
    if _DOUBLE.search(plain) or "//" in plain:
        return None
    # `...` and longer are dots to some Windows servers; a name such as `.well-known` is an ordinary segment.
    return None if any(segment and not segment.strip(".") for segment in plain.split("/")) else plain


def _decode(escapes: re.Match[str]) -> str:
    text = bytes.fromhex(escapes[0].replace("%", "")).decode("utf-8", "strict")
    if any(c in _SHAPING or not c.isprintable() for c in text):
        raise ValueError("an escape that changes the path's shape")
    return text


def problem_of_glob(glob: str) -> str | None:
    """What is wrong with a policy's path glob, or None."""
    if not glob.startswith("/"):
        return "a path begins with '/'"
    if len(glob) > MAX_GLOB:
        return f"a path is at most {MAX_GLOB} characters"
    if glob.count("*") > MAX_STARS:
        return f"a path has at most {MAX_STARS} stars"
    if any(c in glob for c in "?[]{}"):
        return "only '*' (part of one segment) and '**' (any depth) are wildcards, and a query is never matched"
    if any(c in glob for c in ";#\\"):
        return "';', '#' and '\\' are never in a path that passes; servers read them differently"
    segments = glob.split("/")
    if any("**" in s and s != "**" for s in segments):
        return "'**' stands alone between slashes"
    if any(a == b == "**" for a, b in pairwise(segments)):
        return "'**' twice in a row says no more than once"
    if _literal(glob.replace("*", "x")) is None:
        return "not a path that could ever pass: no '//', no '.' or '..' segment, no encoded slash, dot or '%'"
    return None


def _literal(text: str) -> str | None:
    # A glob may be written with the letters themselves; requests carry them percent-encoded.
    encoded = "".join(c if c in "%/" or (c.isascii() and _RAW.fullmatch(c)) else _quoted(c) for c in text)
    return _decoded(encoded)


def _quoted(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def compile_glob(glob: str, *, slash_too: bool = False) -> str:
    """The regular expression whose full match is the glob; `slash_too` covers the path with a '/' behind it as well.

    `*` is any part of one segment (a whole segment is never empty), `**` zero or more whole segments. Each star takes
    the first place that fits and never gives it back (atomic groups), so a hostile path costs no exponential search.
    """
    groups: list[list[str]] = [[]]
    for segment in glob.split("/")[1:]:
        if segment == "**":
            groups.append([])
        else:
            groups[-1].append(segment)
    first, *others = groups
    out = "".join("/" + _segment(s) for s in first)
    if not others:
        return out + ("/?" if slash_too and not glob.endswith("/") else "")
    for middle in others[:-1]:
        out += "(?>(?:/[^/]++)*?" + "".join("/" + _segment(s) for s in middle) + "(?=/|$))"
    last = others[-1]
    if not last:
        return out + "(?:/.*)?"
    out += "(?:/[^/]++)*" + "".join("/" + _segment(s) for s in last)
    return out + ("/?" if slash_too and last[-1] else "")


def _segment(segment: str) -> str:
    if segment == "*":
        return "[^/]++"
    first, *others = (re.escape(_literal_part(part)) for part in segment.split("*"))
    if not others:
        return first
    middle = "".join(f"(?>[^/]*?{part})" for part in others[:-1] if part)
    return f"{first}{middle}[^/]*{others[-1]}"


def _literal_part(part: str) -> str:
    return _ESCAPES.sub(lambda m: bytes.fromhex(m[0].replace("%", "")).decode("utf-8"), part)


def matches(glob: str, path: str, *, slash_too: bool = False) -> bool:
    """Whether one glob covers one canonical path; for explaining, the index compiles its own."""
    return re.fullmatch(compile_glob(glob, slash_too=slash_too), path) is not None
