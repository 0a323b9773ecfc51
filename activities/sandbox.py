"""A sandbox on this host: booted, fenced, its lease moved, destroyed and proved gone."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.running import beating
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Attach, Attached, Boot, Booted, ExtendLease, SandboxRef, Undone
from paddock.host.config import Caps
from paddock.host.gate import Gate
from paddock.host.link import KeeperLink, SupervisorLink
from paddock.host.messages import Ask

LAST_WORD_S = 1.0


def by_this_clock(lease_end: datetime, server: datetime, here: datetime) -> datetime:
    """A time of Temporal's server as this host's clock would say it, whatever the two think that it is now."""
    return here + (lease_end - server)


@dataclass(frozen=True, slots=True)
class SandboxActivities:
    """Verbs on the keeper and on supervisors; `turns` is how many guests boot at once.

    A boot is all processor time. Twenty at once on two processors take each other's caches, and the first is ready
    when the last is: in turns, half of them are ready in half the time, and the last one is no later.
    """

    keeper: KeeperLink
    supervisors: SupervisorLink
    gate: Gate
    caps: Caps
    turns: asyncio.Semaphore

    @activity.defn
    async def boot_sandbox(self, boot: Boot) -> Booted:
        """Confirm the slot, fork the supervisor, and wait for the guest's hello; asked again, finds what is there."""
        async with beating():
            ref = boot.ref
            if not self.gate.slots.confirm(ref.sandbox_id, ref.workflow_id, boot.caller_keys):
                raise PaddockError(ErrorKind.NO_SLOT, "the reservation lapsed before the sandbox booted")
            here = by_this_clock(boot.lease_end, activity.info().started_time, datetime.now(UTC))
            async with self.turns:
                await self.keeper.ask("boot", boot=boot.model_copy(update={"lease_end": here}))
                answer = await self.supervisors.ask(ref.sandbox_id, Ask(op="ready"))
            return Booted(parts_ms=answer.parts_ms)

    @activity.defn
    async def attach_policy(self, attach: Attach) -> Attached:
        """Put the signed policy on the fence; answers the digest that the supervisor enforces after its self-test."""
        async with beating():
            answer = await self.supervisors.ask(attach.ref.sandbox_id, Ask(op="attach", signed=attach.policy.signed))
            if answer.digest != attach.policy.digest:
                raise PaddockError(
                    ErrorKind.FENCE_FAILED,
                    f"the supervisor enforces {answer.digest}, not {attach.policy.digest}",
                )
            return Attached(digest=answer.digest, probes=answer.probes)

    @activity.defn
    async def extend_lease(self, extend: ExtendLease) -> None:
        """Move the supervisor's own deadline."""
        async with beating():
            sandbox_id, now = extend.ref.sandbox_id, datetime.now(UTC)
            lease_end = by_this_clock(extend.lease_end, activity.info().started_time, now)
            if lease_end > now + timedelta(seconds=self.caps.lifetime_s):
                raise PaddockError(
                    ErrorKind.NOT_ALLOWED,
                    f"the lease may end {self.caps.lifetime_s} s from now at the latest",
                    field="lifetime_s",
                    remedy="ask for less, or let the operator raise `caps.lifetime_s`",
                )
            await self.keeper.ask("extend", sandbox_id=sandbox_id, lease_end=lease_end)
            await self.supervisors.ask(sandbox_id, Ask(op="extend", lease_end=lease_end))

    @activity.defn
    async def destroy_vm(self, ref: SandboxRef) -> Undone:
        """Kill all of the sandbox and look until it is gone; a receipt for each thing it held."""
        async with beating(undo=True):
            try:
                denied = (await self.supervisors.ask(ref.sandbox_id, Ask(op="denied"), LAST_WORD_S)).denied
            except PaddockError:
                denied = ()  # gone already, or hanging; what it denied is in the audit chain
            answer = await self.keeper.ask("destroy", sandbox_id=ref.sandbox_id)
            return Undone(receipts=answer.receipts, denied=denied)
