"""On-demand Linux prices of sizes that run sandboxes: a small dated table, and no price where it says nothing."""

from datetime import UTC, datetime
from typing import Final

CURRENCY: Final = "USD"
AS_OF: Final = datetime(2026, 1, 19, tzinfo=UTC)

# US dollars an hour of the family's smallest size, `large`; the others are multiples of it, up to AWS' rounding.
_LARGE: Final = {
    "us-east-1": {
        "c7i": 0.08925,
        "c7i-flex": 0.08479,
        "c8i": 0.09371,
        "c8i-flex": 0.08902,
        "m7i": 0.1008,
        "m7i-flex": 0.09576,
        "m8i": 0.10584,
        "m8i-flex": 0.10055,
        "r7i": 0.1323,
        "r7iz": 0.186,
        "r8i": 0.13892,
        "r8i-flex": 0.13197,
    }
}
_MULTIPLES: Final = {
    "large": 1,
    "xlarge": 2,
    "2xlarge": 4,
    "4xlarge": 8,
    "8xlarge": 16,
    "12xlarge": 24,
    "16xlarge": 32,
    "24xlarge": 48,
    "32xlarge": 64,
    "48xlarge": 96,
    "96xlarge": 192,
}
_METAL: Final = {
    "us-east-1": {
        "c5.metal": 4.08,
        "c6a.metal": 7.344,
        "c6i.metal": 5.44,
        "c7i.metal-24xl": 4.7124,
        "c7i.metal-48xl": 8.568,
        "c8i.metal-48xl": 9.89578,
        "i3.metal": 4.992,
        "m5.metal": 4.608,
        "m5zn.metal": 4.3605,
        "m6a.metal": 8.2944,
        "m6i.metal": 6.144,
        "m7i.metal-24xl": 5.32224,
        "m7i.metal-48xl": 9.6768,
        "m8i.metal-48xl": 10.16064,
        "r7i.metal-24xl": 6.98544,
        "r7i.metal-48xl": 12.7008,
        "r8i.metal-48xl": 14.66995,
    }
}


def price(region: str, size: str) -> float | None:
    """US dollars an hour on AS_OF, without disk and traffic; None where the table does not say."""
    metal = _METAL.get(region, {}).get(size)
    if metal is not None:
        return metal
    family, _, multiple = size.partition(".")
    large = _LARGE.get(region, {}).get(family)
    times = _MULTIPLES.get(multiple)
    return None if large is None or times is None else round(large * times, 5)
