"""The supervisor's own lease: when nobody renews it, the sandbox ends, whoever else is gone."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

GRACE_S = 2.0


class Deadline:
    """Calls `expired` once, `GRACE_S` behind the lease's end, so that the workflow's own timer comes first.

    The wall clock is read when the lease is set and never again: a clock that jumps does not end or prolong a sandbox.
    """

    def __init__(self, lease_end: datetime, expired: Callable[[], None], wall: Callable[[], float] = time.time) -> None:
        self._expired, self._wall = expired, wall
        self._timer: asyncio.TimerHandle | None = None
        self.lease_end = lease_end
        self.move(lease_end)

    def move(self, lease_end: datetime) -> None:
        """A new end, earlier or later."""
        self.lease_end = lease_end
        if self._timer:
            self._timer.cancel()
        left = max(0.0, lease_end.timestamp() - self._wall()) + GRACE_S
        self._timer = asyncio.get_running_loop().call_later(left, self._expired)
