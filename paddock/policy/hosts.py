"""Host names: one canonical form for every name that a policy, a guest or a certificate speaks of."""

import re
from functools import lru_cache

from paddock.policy import suffixes

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_NAME = 253

_LOOPBACK = ("localhost", "localdomain")
METADATA_NAMES = frozenset(
    {
        "metadata.google.internal",
        "metadata.goog",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "metadata.platformequinix.com",
        "metadata.packet.net",
    }
)


def canonical(name: str) -> str | None:
    """The lower-case name without its final dot, or None for anything but an ASCII host name of two labels or more.

    An IP literal in any spelling (`127.1`, `0x7f.1`, `[::1]`), userinfo, port, underscore, letter beyond ASCII: None.
    """
    return _canonical(name) if len(name) <= MAX_NAME + 1 else None


@lru_cache(maxsize=4096)
def _canonical(name: str) -> str | None:
    if not name.isascii():
        return None
    name = name.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return None
    # getaddrinfo reads a numeric last label as an address: 2130706433, 127.1 and 0x7f.0.0.1 are all loopback.
    return None if _NUMERIC.fullmatch(name.rpartition(".")[2]) else name


def forbidden(name: str) -> str | None:
    """Why no policy may name this canonical host, or None."""
    if name.rpartition(".")[2] in _LOOPBACK:
        return "a name of this machine"
    if name in METADATA_NAMES:
        return "a cloud metadata service"
    return None


def problem_of(host: str) -> str | None:
    """What is wrong with a policy's `host`, exact or `*.wildcard`, or None."""
    wild = host.startswith("*.")
    bare = host[2:] if wild else host
    if "*" in bare:
        return "a wildcard stands alone as the first label: '*.example.com'"
    if _looks_numeric(bare):
        return "an address is not a host; name the host, and let the operator's `connections` map private ones"
    if not bare.isascii():
        return "only ASCII names are allowed; write an international name in its 'xn--' form"
    if "://" in bare or "/" in bare or "@" in bare or ":" in bare:
        return "only the name belongs here, without scheme, user, port or path"
    if bare.rstrip(".").lower() in _LOOPBACK:
        return "a name of this machine may not be reached"
    name = canonical(bare)
    if name is None:
        if wild and canonical(f"x.{bare}"):
            return suffixes.problem_of_wildcard(bare.lower())
        if "." not in bare.strip("."):
            return "a host has two labels or more, as in 'api.example.com'"
        return "not a host name: letters, digits and hyphens in labels of 1 to 63, at most 253 in all"
    why = forbidden(name)
    if why:
        return f"{why} may not be reached"
    return suffixes.problem_of_wildcard(name) if wild else None


def _looks_numeric(host: str) -> bool:
    last = host.lower().rstrip(".").rpartition(".")[2]
    return bool(_NUMERIC.fullmatch(last)) or host.startswith("[") or host.count(":") > 1
