"""How workflows ended, by the server's own word: state and report as plain JSON, without the product's models."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

HELD = frozenset({"supervisor", "vm", "disk", "rundir", "socket", "slot"})


@dataclass(frozen=True, slots=True)
class Ending:
    """`state` is RUNNING, COMPLETED, FAILED, …; the report is the sandbox's own, when it gave one."""

    state: str
    report: dict[str, Any]

    @property
    def sandbox(self) -> str:
        return str(self.report.get("sandbox_id", ""))

    @property
    def outcome(self) -> str:
        return str(self.report.get("outcome", "")) or self.state.lower()


async def ending(address: str, workflow: str, within_s: float = 5.0) -> Ending | None:
    """How one workflow ended; RUNNING when it has not within the time; None when the server knows none of that name."""
    client = await Client.connect(address)
    handle = client.get_workflow_handle(workflow)
    try:
        report = await asyncio.wait_for(handle.result(), within_s)
    except TimeoutError:
        return Ending("RUNNING", {})
    except WorkflowFailureError as failure:
        cause: Any = failure.cause
        details = getattr(cause, "details", ())
        report = details[0] if details else {}
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    state = (await handle.describe()).status or WorkflowExecutionStatus.RUNNING
    return Ending(state.name, report if isinstance(report, dict) else {})


def unproved(found: Ending, *, booted: bool, fenced: bool, cgroups: bool) -> list[str]:
    """What a report leaves open: a receipt that is not proved, or none at all for what a booted sandbox held."""
    receipts = found.report.get("receipts") or []
    faults = [f"{r['resource']} {r['id']}: {r['gone']} ({r['checked_by']})" for r in receipts if r["gone"] != "proved"]
    if booted:
        wanted = HELD | ({"credential"} if fenced else set()) | ({"cgroup"} if cgroups else set())
        faults += [f"no receipt of its {name}" for name in sorted(wanted - {r["resource"] for r in receipts})]
        if not found.report.get("audit", {}).get("verified"):
            faults.append(f"its audit chain is not verified: {found.report.get('audit')}")
    return faults
