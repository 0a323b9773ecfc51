"""An environment's ground: what its provider says, asked with that environment's credentials."""

import asyncio
import logging
from dataclasses import dataclass

from temporalio import activity

from activities.running import beating
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Fenced, GroundInventory, HostSpec
from providers.contract import HostProvider, HostState, Item, ProviderError

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class EnvironmentActivities:
    """Verbs on one environment's provider."""

    environment: str
    provider: HostProvider
    controller: str = "paddock"

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

    @activity.defn
    async def fence_host(self, spec: HostSpec) -> Fenced:
        """End the machine of a lost host, and answer once the provider's own list says that it is gone.

        Not `gone` when this provider holds no such machine: then nobody can end it from here.
        """
        async with beating(undo=True):
            held = await self._machines(spec)
            if not held:
                return Fenced(checked_by=f"the {self.provider.name} provider holds no machine of host {spec.host}")
            while held:
                for item in held:
                    try:
                        await asyncio.to_thread(self.provider.terminate, item)
                    except ProviderError as wrong:
                        if not wrong.again:
                            raise
                        log.warning("ending %s: %s", item.name, wrong)
                await asyncio.sleep(LOOK_AGAIN_S)
                held = await self._machines(spec)
            names = f"no machine of host {spec.host} in the complete list of the {self.provider.name} provider"
            return Fenced(gone=True, checked_by=names)

    async def _machines(self, spec: HostSpec) -> list[Item]:
        """What is not gone of the host's, from a list that is complete: absence from another proves nothing."""
        found = await asyncio.to_thread(self.provider.list_owned, self.controller)
        mine = [item for item in found.items if item.host == spec.host and item.state is not HostState.GONE]
        if not mine and not found.complete:
            raise PaddockError(
                ErrorKind.UNREACHABLE,
                f"the {self.provider.name} provider's list is not complete: {', '.join(found.missing_scopes)}",
            )
        return mine
