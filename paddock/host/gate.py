"""The host's slots as its worker sees them: it polls for placements only while a slot is free and unpromised."""

import asyncio
from collections.abc import Sized

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

from paddock.host.slots import Slots

LOOK_AGAIN_S = 1.0


class Gate:
    """Slots with a condition to wait on; lives on the worker's event loop."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def reserve(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...]) -> bool:
        return self.slots.reserve(sandbox_id, workflow_id, caller_keys)

    def release(self, sandbox_id: str) -> bool:
        released = self.slots.release(sandbox_id)
        self.wake()
        return released

    def open(self) -> None:
        """This host has proved itself: slots are promised from now on, unless it leaves."""
        self.slots.closed = False
        self.wake()

    def wake(self) -> None:
        """Somebody may go on: a slot is free, or a promise was used."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def free(self, promised: Sized) -> None:
        """Wait until more slots are free than `promised` holds by then; what lapses is seen within a second."""
        while self.slots.free() <= len(promised):
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN_S)
            except TimeoutError:
                continue


class PlacementSlots(CustomSlotSupplier):
    """One free slot of the host for each poll in flight, so that a full host asks for nothing."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._promised: dict[int, SlotPermit] = {}

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        permit = SlotPermit()
        while True:
            await self._gate.free(self._promised)
            if self._gate.slots.free() > len(self._promised):
                self._promised[id(permit)] = permit
                return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        return None

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        # Called from a thread of the SDK's core.
        self._gate.loop.call_soon_threadsafe(self._release, id(ctx.permit))

    def _release(self, permit: int) -> None:
        self._promised.pop(permit, None)
        self._gate.wake()
