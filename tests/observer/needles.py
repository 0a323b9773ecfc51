"""A secret in every form in which it is looked for."""

from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import dataclass

SHORTEST = 12


@dataclass(frozen=True, slots=True)
class Needle:
    """Bytes to look for, and which form of the secret they are."""

    form: str
    data: bytes


def needles(value: bytes) -> tuple[Needle, ...]:
    """Both halves of every form: a copy that lies across two pages of a guest's memory still holds one half whole.

    Raises ValueError for a value too short to be told from chance.
    """
    if len(value) < 2 * SHORTEST:
        raise ValueError(f"a secret of {len(value)} bytes is too short to be looked for; at least {2 * SHORTEST}")
    found: dict[bytes, Needle] = {}
    for form, data in _forms(value):
        middle = len(data) // 2
        for half in (data[:middle], data[middle:]):
            found.setdefault(half, Needle(form, half))
    return tuple(found.values())


def _forms(value: bytes) -> list[tuple[str, bytes]]:
    percent = "".join(f"%{byte:02X}" for byte in value).encode()
    text = value.decode("utf-8", "replace")
    forms = [
        ("raw", value),
        ("hex", value.hex().encode()),
        ("hex", value.hex().upper().encode()),
        ("percent", percent),
        ("percent", percent.lower()),
        ("percent", urllib.parse.quote(value, safe="").encode()),
        ("json", json.dumps(text)[1:-1].encode()),
        ("utf-16", text.encode("utf-16-le")),
        ("utf-16", text.encode("utf-16-be")),
    ]
    for skipped in range(3):  # where the secret stands in a longer text that was encoded as a whole
        encoded = base64.b64encode(bytes(skipped) + value)
        first = -(-8 * skipped // 6)  # the characters that hold only bits of the secret
        last = 8 * (skipped + len(value)) // 6
        for form in (encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))):
            forms.append(("base64", form[first:last]))
    return forms
