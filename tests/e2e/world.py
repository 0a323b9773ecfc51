"""A system from outside: sandboxes started as any client starts them, their processes, and what is left of them."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from paddock.contracts import names
from paddock.temporal.connect import connect
from tests.e2e.conftest import Up
from tests.observer import Allowed, Trace, adopt_orphans, reap_orphans, settle, snapshot


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start(up: Up, spec: dict[str, object]) -> str:
    """Start a sandbox and leave it; answers its workflow id."""

    async def begin() -> str:
        client = await connect(str(up.info["temporal"]))
        handle = await client.start_workflow(
            names.SANDBOX, spec, id=f"e2e-{time.time_ns()}", task_queue=names.CONTROL_QUEUE
        )
        return handle.id

    return asyncio.run(begin())


def status(up: Up, workflow: str) -> dict[str, object]:
    async def ask() -> dict[str, object]:
        client = await connect(str(up.info["temporal"]))
        return dict(await client.get_workflow_handle(workflow).query("status"))

    return asyncio.run(ask())


def result(up: Up, workflow: str, seconds: float = 60) -> dict[str, object]:
    """The report of a sandbox, when it has ended."""
    from temporalio.client import WorkflowFailureError

    async def wait() -> dict[str, object]:
        client = await connect(str(up.info["temporal"]))
        try:
            return dict(await asyncio.wait_for(client.get_workflow_handle(workflow).result(), seconds))
        except WorkflowFailureError as failure:
            return dict(failure.cause.details[0])  # type: ignore[union-attr]

    return asyncio.run(wait())


def every_receipt(report: dict[str, object]) -> None:
    receipts = report["receipts"]
    assert isinstance(receipts, list)
    assert {r["resource"] for r in receipts} >= {"vm", "supervisor", "rundir", "socket", "disk", "slot", "credential"}
    assert all(r["gone"] == "proved" for r in receipts), receipts


def processes_of(up: Up, sandbox: str) -> tuple[int, int]:
    """The supervisor and the VMM of a sandbox: who works in its run directory."""
    directory = str(up.state / "host" / "run" / sandbox)
    found: dict[bool, int] = {}

    def both() -> bool:
        found.clear()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{os.readlink(entry / 'cwd')}/".startswith(f"{directory}/"):
                    found[(entry / "comm").read_text().startswith("pd-")] = int(entry.name)
            except OSError:
                continue
        return len(found) == 2

    until(both)
    return found[True], found[False]


class Observed:
    """The machine before, and what of ours is left of what came since."""

    def __init__(self, state: Path) -> None:
        adopt_orphans()
        self.state, self.before = state, snapshot(())

    def left(self, *sandboxes: str) -> list[Trace]:
        reap_orphans()
        found = settle(self.before, lambda: snapshot(()), Allowed(), root=os.getpid(), within_s=10)
        # An empty group and a mount have no owner, and others may be at work on this machine.
        ours = (str(self.state), *sandboxes)
        return [one for one in found if one.owners or any(name in one.what for name in ours)]
