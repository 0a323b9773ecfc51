"""The sandbox's audit chain: sealed when nothing can be added, verified from files and public keys alone."""

import asyncio
from dataclasses import dataclass

from temporalio import activity

from activities.running import beating
from paddock.audit.checkpoint import load_keys
from paddock.audit.verify import verify_sandbox
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import SandboxRef, Sealed
from paddock.contracts.report import AuditSummary
from paddock.host.config import HostConfig
from paddock.host.link import KeeperLink


@dataclass(frozen=True, slots=True)
class AuditActivities:
    """Verbs on the host's recorder, through the keeper."""

    config: HostConfig
    keeper: KeeperLink

    @activity.defn
    async def seal_audit(self, ref: SandboxRef) -> Sealed:
        """Seal the chain and verify what was sealed."""
        async with beating(undo=True):
            paths = self.config.paths
            answer = await self.keeper.ask("seal", sandbox_id=ref.sandbox_id)
            if answer.events == 0:  # the workflow knows whether it booted, and so whether that can be right
                return Sealed(audit=AuditSummary())
            try:
                verdict = await asyncio.to_thread(verify_sandbox, paths.audit / answer.path, load_keys(paths.keys))
            except (OSError, ValueError) as wrong:
                raise PaddockError(ErrorKind.AUDIT_BROKEN, f"the sealed chain cannot be read: {wrong}") from wrong
            return Sealed(audit=AuditSummary(events=answer.events, head=answer.head, verified=verdict.state == "whole"))
