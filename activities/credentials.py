"""Credentials of a sandbox: its store token and everything that hangs from it, revoked and proved refused."""

from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity

from activities.running import beating
from paddock.contracts.hosts import SandboxRef, Undone
from paddock.contracts.report import Gone, Receipt
from paddock.host.link import KeeperLink


@dataclass(frozen=True, slots=True)
class CredentialActivities:
    """Verbs on the host's broker, through the keeper."""

    keeper: KeeperLink

    @activity.defn
    async def revoke_credentials(self, ref: SandboxRef) -> Undone:
        """Revoke the sandbox's token; the receipt says how its refusal was seen."""
        async with beating(undo=True):
            answer = await self.keeper.ask("revoke", sandbox_id=ref.sandbox_id)
            return Undone(
                receipts=(
                    Receipt(
                        resource="credential",
                        id=ref.sandbox_id,
                        gone=Gone(answer.gone or Gone.UNPROVED),
                        checked_by=answer.checked_by,
                        at=datetime.now(UTC),
                    ),
                )
            )
