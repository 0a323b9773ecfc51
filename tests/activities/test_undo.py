"""An undo is tried again whatever it ran into; a do is not."""

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.running import beating
from paddock.contracts.errors import ErrorKind, PaddockError


@pytest.mark.parametrize("undo", [True, False])
async def test_only_a_do_may_fail_for_good(undo: bool) -> None:
    async def work() -> None:
        async with beating(undo=undo):
            raise PaddockError(ErrorKind.BOOT_FAILED, "broke")

    with pytest.raises(ApplicationError) as failure:
        await ActivityEnvironment().run(work)
    assert failure.value.non_retryable is not undo
