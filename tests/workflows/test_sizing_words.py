"""What a pool and a machine that is wanted may say: what could never serve is refused in words."""

import pytest
from pydantic import ValidationError

from paddock.contracts.ground import Wanted
from paddock.contracts.pool import PoolSpec

BOTH: tuple[tuple[type[PoolSpec | Wanted], dict[str, object]], ...] = (
    (PoolSpec, {"environment": "e", "choices": [{"size": "s"}]}),
    (Wanted, {"choices": [{"size": "s"}]}),
)


@pytest.mark.parametrize("times", [(300, 200, 100), (599, 300, 300), (720, 600, 120)])
def test_a_machine_that_its_cloud_may_end_before_it_serves_is_refused(times: tuple[int, int, int]) -> None:
    names = dict(zip(("lifetime_s", "boot_s", "prove_s"), times, strict=True))
    words = f"lifetime_s {times[0]} must be more than boot_s {times[1]} and prove_s {times[2]} together"
    for made, given in BOTH:
        with pytest.raises(ValidationError, match=words):
            made.model_validate({**given, **names})
        made.model_validate({**given, **names, "lifetime_s": sum(times[1:]) + 1})


@pytest.mark.parametrize("pool", ["Default", "a b", "default\n", "x/default", "_a", ""])
def test_the_name_of_a_pool_is_one_word(pool: str) -> None:
    for made, given in BOTH:
        with pytest.raises(ValidationError, match="pool"):
            made.model_validate({**given, "pool": pool})
