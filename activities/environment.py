"""An environment's ground: what its provider says, asked with that environment's credentials."""

import asyncio
from dataclasses import dataclass

from temporalio import activity

from activities.running import beating
from paddock.contracts.hosts import GroundInventory
from providers.contract import HostProvider


@dataclass(frozen=True, slots=True)
class EnvironmentActivities:
    """Verbs on one environment's provider."""

    environment: str
    provider: HostProvider

    @activity.defn
    async def list_ground(self, controller: str) -> GroundInventory:
        """What the provider holds for this controller, and whether all of it could be read."""
        async with beating():
            found = await asyncio.to_thread(self.provider.list_owned, controller)
            return GroundInventory(
                environment=self.environment,
                provider=self.provider.name,
                items=tuple(item.name for item in found.items),
                complete=found.complete,
            )
