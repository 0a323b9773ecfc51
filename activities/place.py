"""Placement: a host with a free slot pulls the request, and its own table decides."""

from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity

from activities.running import beating
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.hosts import AllowCaller, HostSpec, Placed, Reservation, SandboxRef, Undone
from paddock.contracts.report import Gone, Receipt
from paddock.host.config import HostConfig
from paddock.host.gate import Gate


@dataclass(frozen=True, slots=True)
class PlaceActivities:
    """Reserving and releasing this host's slots."""

    config: HostConfig
    gate: Gate
    images: frozenset[str]

    @activity.defn
    async def reserve_slot(self, ask: Reservation) -> Placed:
        """Promise a slot for a short time, or refuse by the answer: `full` to ask again, `error` to give up."""
        host = self.config.host
        if error := self._unknown_image(ask) or self._too_large(ask) or self._too_long(ask):
            return Placed(host=host, error=error)
        if not self.gate.reserve(ask.ref.sandbox_id, ask.ref.workflow_id, ask.caller_keys):
            return Placed(host=host, full=True)
        return Placed(host=host, relay=self.config.relay)

    @activity.defn
    async def release_slot(self, ref: SandboxRef) -> Undone:
        """Free the slot; the receipt comes from looking into the table."""
        async with beating(undo=True):
            free = self.gate.release(ref.sandbox_id)
            return Undone(
                receipts=(
                    Receipt(
                        resource="slot",
                        id=ref.sandbox_id,
                        gone=Gone.PROVED if free else Gone.UNPROVED,
                        checked_by="not in the host's own table",
                        at=datetime.now(UTC),
                    ),
                )
            )

    @activity.defn
    async def stop_placing(self, spec: HostSpec) -> int:
        """Promise no slot any more until this worker starts again; answers how many are held."""
        self.gate.slots.leaving = True
        return len(self.gate.slots.held())

    @activity.defn
    async def allow_caller(self, ask: AllowCaller) -> None:
        """Let one more key open the sandbox's streams."""
        self.gate.slots.allow(ask.ref.sandbox_id, ask.caller_key)

    def _unknown_image(self, ask: Reservation) -> ErrorInfo | None:
        if ask.image in self.images:
            return None
        known = ", ".join(sorted(name for name in self.images if not name.startswith("sha256:")))
        return ErrorInfo(
            kind=ErrorKind.UNKNOWN_IMAGE,
            message=f"no image {ask.image!r} in environment {self.config.environment!r}; known: {known}",
            field="image",
            remedy="name one of those",
        )

    def _too_long(self, ask: Reservation) -> ErrorInfo | None:
        most = self.config.caps.lifetime_s
        if ask.lifetime_s <= most:
            return None
        return ErrorInfo(
            kind=ErrorKind.BAD_SPEC,
            message=f"lifetime_s: {ask.lifetime_s} is more than this environment allows ({most})",
            field="lifetime_s",
            remedy="ask for less, extend it later, or let the operator raise `caps.lifetime_s`",
        )

    def _too_large(self, ask: Reservation) -> ErrorInfo | None:
        caps = self.config.caps
        for name in ("vcpu", "memory_mib", "disk_mib"):
            wanted, most = getattr(ask.shape, name), getattr(caps, name)
            if wanted > most:
                return ErrorInfo(
                    kind=ErrorKind.BAD_SPEC,
                    message=f"shape.{name}: {wanted} is more than this environment allows ({most})",
                    field=f"shape.{name}",
                    remedy="ask for less, or let the operator raise `caps` in the configuration",
                )
        return None
