"""The host itself: one heartbeat for its whole life, and a look at what it holds when it comes back."""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio import activity
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.running import BEAT_S, beating
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ground import Proof
from paddock.contracts.hosts import Boot, Booted, HostSpec, SandboxRef
from paddock.contracts.ids import sandbox_id
from paddock.contracts.spec import Shape
from paddock.host.messages import Held

log = logging.getLogger(__name__)
Inventory = Callable[[], Awaitable[tuple[Held, ...]]]
Undo = Callable[[SandboxRef], Awaitable[object]]
PROBE_LEASE = timedelta(minutes=10)
CLOCK_S = 30.0
DISK_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Prover:
    """How a host proves itself: the guest that it boots, and the directory that must have room."""

    boot: Callable[[Boot], Awaitable[Booted]]
    shape: Shape
    state: Path
    image: str = "base"


@dataclass(frozen=True, slots=True)
class HostActivities:
    """What a host's own worker says for it; `undos` end a sandbox, in their order."""

    inventory: Inventory
    undos: tuple[Undo, ...]
    prover: Prover | None = None
    opened: Callable[[], None] = lambda: None

    @activity.defn
    async def hold_host(self, spec: HostSpec) -> None:
        """Heartbeat for as long as this worker runs; found again by the next one. A host that is held has slots."""
        self.opened()
        while True:
            activity.heartbeat(spec.host)
            await asyncio.sleep(BEAT_S)

    @activity.defn
    async def prove_host(self, spec: HostSpec) -> Proof:
        """A guest boots here and answers, and is ended again; a flag of the processor proves nothing.

        Raises ApplicationError with what is wrong: no room, a clock that is off, or why the guest did not boot.
        """
        assert self.prover
        async with beating():
            info, here = activity.info(), datetime.now(UTC)
            off = abs((here - info.started_time).total_seconds())
            if off > CLOCK_S:
                raise PaddockError(ErrorKind.SET_UP, f"the clock of host {spec.host} is {off:.0f} s off the server's")
            free = shutil.disk_usage(self.prover.state).free
            if free < DISK_BYTES:
                raise PaddockError(
                    ErrorKind.DISK_FULL, f"host {spec.host} has {free >> 20} MiB free, needs {DISK_BYTES >> 20}"
                )
            assert info.workflow_id
            assert info.workflow_run_id
            ref = SandboxRef(
                sandbox_id=sandbox_id(info.workflow_id, info.workflow_run_id),
                workflow_id=info.workflow_id,
                run_id=info.workflow_run_id,
                environment=spec.environment,
                host=spec.host,
            )
            probe = Boot(ref=ref, image=self.prover.image, shape=self.prover.shape, lease_end=here + PROBE_LEASE)
            began = time.monotonic()
            try:
                booted = await self.prover.boot(probe)
                took = (time.monotonic() - began) * 1e3
            finally:
                await asyncio.shield(self._undo(ref))
            return Proof(parts_ms={"guest": took, **booted.parts_ms})

    async def _undo(self, ref: SandboxRef) -> None:
        for undo in self.undos:
            await undo(ref)

    @activity.defn
    async def check_host(self, spec: HostSpec) -> int:
        """A host that is back ends what it still holds of sandboxes that ended without it; answers how many.

        Their workflows are surely over: the server says so of that very run. One that it does not know is left to the
        sweep, which asks twice and has a guard.
        """
        log.info("host %s is back", spec.host)
        ended = 0
        async with beating():
            for held in await self.inventory():
                if not held.protected and await _is_over(held.ref):
                    await self._undo(held.ref)
                    ended += 1
        return ended


async def _is_over(ref: SandboxRef) -> bool:
    """Whether the sandbox's workflow has ended; a run that goes on as another is the same sandbox."""
    client = activity.client()
    try:
        run = await client.get_workflow_handle(ref.workflow_id, run_id=ref.run_id).describe()
        if run.status is not WorkflowExecutionStatus.RUNNING:  # continued, or reset: the same sandbox
            last = await client.get_workflow_handle(ref.workflow_id).describe()
            run = last if _first_run(last) == ref.run_id else run
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return run.status is not WorkflowExecutionStatus.RUNNING


def _first_run(described: WorkflowExecutionDescription) -> str:
    return described.raw_description.workflow_execution_info.first_run_id
