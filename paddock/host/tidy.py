"""What a sandbox left for its caller goes an hour after its end: objects by digest, and the output of its tasks."""

import asyncio
import logging
from typing import Final

from paddock.contracts.errors import PaddockError
from paddock.host.link import KeeperLink
from paddock.host.objects import ObjectStore
from paddock.host.paths import HostPaths
from paddock.host.slots import Slots

log = logging.getLogger(__name__)
EVERY_S: Final = 60.0


async def tidy(slots: Slots, keeper: KeeperLink, objects: ObjectStore, paths: HostPaths) -> None:
    """Look every minute, until cancelled."""
    while True:
        try:
            await tidy_once(slots, keeper, objects, paths)
        except (PaddockError, OSError) as wrong:
            log.warning("tidying: %s", wrong)
        await asyncio.sleep(EVERY_S)


async def tidy_once(slots: Slots, keeper: KeeperLink, objects: ObjectStore, paths: HostPaths) -> None:
    """Drop what belongs to sandboxes that nobody may ask for any more."""
    wanted = slots.remembered()
    for sandbox_id in objects.sandboxes():
        if sandbox_id not in wanted:
            objects.forget(sandbox_id)
    for output in sorted(paths.output.glob("sb-*")):
        if output.name not in wanted:
            await keeper.ask("forget", sandbox_id=output.name)
