"""Probes from inside before any task may start: what must pass passes, what must fail fails."""

import asyncio
import secrets

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ProbeKind

# RFC 5737: an address that is nobody's. RFC 6761: a top-level name that never exists.
NOBODY = "192.0.2.1"
NEVER = "paddock-selftest.invalid"
OWN_PROBES = (NEVER, NOBODY)


async def prove_fence(link: Link, allowed_name: str | None) -> int:
    """How many probes were made; raises PaddockError FENCE_FAILED with the one that went wrong."""
    name = f"{secrets.token_hex(8)}.{NEVER}"
    must_fail = (
        (ProbeKind.DNS, name, 0, "a name that no policy allows was resolved"),
        (ProbeKind.TCP, NOBODY, 443, "a connection to a raw address was let through"),
        (ProbeKind.UDP, NOBODY, 443, "a datagram was let through"),
    )
    # At once: each runs code of the guest for the first time, and the waits in between would only add up.
    results = await asyncio.gather(*(link.probe(kind, target, port) for kind, target, port, _ in must_fail))
    for result, (_, target, _, words) in zip(results, must_fail, strict=True):
        if result.ok:
            raise PaddockError(ErrorKind.FENCE_FAILED, f"self-test of the fence: {words}", field=target)
    if allowed_name:
        result = await link.probe(ProbeKind.DNS, allowed_name, 0)
        if not result.ok:
            raise PaddockError(
                ErrorKind.FENCE_FAILED,
                f"self-test of the fence: an allowed name was not resolved: {result.text}",
                field=allowed_name,
            )
    return len(must_fail) + bool(allowed_name)
