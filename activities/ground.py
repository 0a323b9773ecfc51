"""The host itself: one heartbeat for its whole life."""

import asyncio
from dataclasses import dataclass

from temporalio import activity

from activities.running import BEAT_S
from paddock.contracts.hosts import HostSpec


@dataclass(frozen=True, slots=True)
class HostActivities:
    """What a host's own worker says for it."""

    @activity.defn
    async def hold_host(self, spec: HostSpec) -> None:
        """Heartbeat for as long as this worker runs; found again by the next one."""
        while True:
            activity.heartbeat(spec.host)
            await asyncio.sleep(BEAT_S)
