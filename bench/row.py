"""One measured row of a benchmark's table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`p50` and `p99` in `unit` over `n` samples, with the goal and a peer of the same run, if any."""

    name: str
    unit: str
    p50: float
    p99: float
    n: int
    target: float | None = None
    peer: float | None = None
