"""Terminate runs no code: the supervisor's own deadline or the sweep cleans up, whichever is first, with receipts."""

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from paddock.contracts import names
from paddock.host.link import KeeperLink
from paddock.host.paths import HostPaths
from paddock.temporal.connect import connect
from tests.e2e.conftest import Up
from tests.e2e.world import Observed, alive, processes_of, start, status, until
from workflows.steps import BEFORE_THE_TASK

pytestmark = pytest.mark.vm
ROOT = os.geteuid() == 0
STRAY, SLOT, GROUP = (f"sb-{letter * 20}" for letter in "abc")
SOON = ("--grace", "2s", "--between", "1s")


def with_client(up: Up, what: Any) -> Any:
    async def work() -> Any:
        return await what(await connect(str(up.info["temporal"])))

    return asyncio.run(work())


def terminate(up: Up, *workflows: str) -> None:
    """End the workflows as the Temporal UI's button does, and wait until the index knows."""

    async def work(client: Client) -> None:
        for workflow in workflows:
            await client.get_workflow_handle(workflow).terminate("the test's button")
        async with asyncio.timeout(20):
            query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running"'
            while {*workflows} & {found.id async for found in client.list_workflows(query)}:
                await asyncio.sleep(0.05)

    with_client(up, work)


def pause_the_schedule(up: Up) -> None:
    """Its own sweep must not come between; that it is there is a part of the test."""

    async def work(client: Client) -> None:
        handle = client.get_schedule_handle(names.cleanup_schedule_id("local"))
        assert (await handle.describe()).schedule.spec.intervals
        await handle.pause(note="a test")

    with_client(up, work)


def scheduled(up: Up) -> dict[str, Any]:
    """The report of a run that the schedule itself starts."""

    async def work(client: Client) -> dict[str, Any]:
        await client.get_schedule_handle(names.cleanup_schedule_id("local")).trigger()
        query = f'WorkflowType="{names.FLEET_CLEANUP}" AND WorkflowId STARTS_WITH "fleet-cleanup/local-"'
        async with asyncio.timeout(30):
            while not (found := [one.id async for one in client.list_workflows(query)]):
                await asyncio.sleep(0.05)
            return dict(await client.get_workflow_handle(found[0]).result())

    return dict(with_client(up, work))


def sweep(up: Up, *words: str) -> tuple[int, dict[str, Any]]:
    """`paddock fleet cleanup`: its exit code and its report."""
    done = up.run("fleet", "cleanup", "--json", *SOON, *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(report: dict[str, Any], ours: set[str]) -> dict[str, dict[str, Any]]:
    """Rows about `ours`: an empty cgroup of another test that was killed may be swept, too."""
    return {row["id"]: row for row in report["rows"] if row["id"] in ours}


def slots(up: Up) -> dict[str, Any]:
    return dict(json.loads((up.state / "host" / "worker" / "slots.json").read_text())["held"])


def groups() -> list[Path]:
    """Where a cgroup of that name would lie, in hierarchies where all hosts of this machine share one place."""
    return [path for path in Path("/sys/fs/cgroup").glob("*/paddock") if path.is_dir()]


def plant(up: Up) -> None:
    """A stray run directory, a slot that nobody holds, and an empty cgroup of this host's naming."""
    (up.state / "host" / "run" / STRAY).mkdir()
    (up.state / "host" / "run" / STRAY / "supervisor.log").write_text("half of a sandbox\n")
    file = up.state / "host" / "worker" / "slots.json"
    table = json.loads(file.read_text())
    table["held"][SLOT] = {"sandbox_id": SLOT, "workflow_id": "none", "confirmed": True, "expires_at": time.time() - 99}
    ready = up.state / "host" / "worker" / "ready"
    ready.unlink()
    file.write_text(json.dumps(table))
    os.kill(up.pids["worker"], signal.SIGKILL)  # it holds the table in memory: the next one reads it
    until(ready.exists, 30)
    if ROOT:
        for group in groups():
            (group / f"local-local-1-{GROUP}").mkdir()
            (group / f"local-local-1-{GROUP}").stat()  # the kernel dates a cgroup when it is first looked at


def unplant(group: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        group.rmdir()


def planted(up: Up) -> list[bool]:
    """Whether each planted thing is there."""
    there = [(up.state / "host" / "run" / STRAY).exists(), SLOT in slots(up)]
    return there + [any((group / f"local-local-1-{GROUP}").exists() for group in groups())] * ROOT


def destroy(up: Up, sandbox: str) -> None:
    """End a sandbox that no sweep may touch, by the keeper's own word."""

    async def work() -> None:
        link = KeeperLink(HostPaths(up.state / "host"), lambda *_: None)
        await link.open()
        await link.ask("destroy", sandbox_id=sandbox)
        await link.close()

    asyncio.run(work())


def test_terminated_sandboxes_end_by_their_deadline_or_by_the_sweep_and_leave_nothing(tmp_path: Path) -> None:
    seen, up = Observed(tmp_path), Up(tmp_path / "state").start()
    strays = {STRAY, SLOT, GROUP} if ROOT else {STRAY, SLOT}
    ids: dict[str, str] = {}
    try:
        pause_the_schedule(up)
        began = time.monotonic()
        boxes = {
            "orphan": start(up, {}),
            "short": start(up, {"lifetime_s": 30}),
            "owned": start(up, {}),
            "protected": start(up, {"labels": {names.PROTECT: "a test"}}),
        }
        for box in boxes.values():
            until(lambda box=box: status(up, box)["state"] == "ready", 90)  # type: ignore[misc]
        ids |= {name: str(status(up, box)["sandbox_id"]) for name, box in boxes.items()}
        processes = {name: processes_of(up, sandbox) for name, sandbox in ids.items()}
        terminate(up, *(boxes[name] for name in ("orphan", "short", "protected")))
        plant(up)
        ours = {*ids.values(), *strays}
        time.sleep(2)  # the grace time

        # A dry run says what would be, and changes nothing.
        code, report = sweep(up, "--dry-run")
        found = rows(report, ours)
        assert code == 1
        assert report["passes"] == 2, report
        assert {name for name, row in found.items() if row["action"] == "would free"} == {
            ids["orphan"],
            ids["short"],
            *strays,
        }, report
        assert found[ids["protected"]]["action"] == "spared"
        assert ids["owned"] not in found
        assert all(planted(up))
        assert all(alive(pid) for both in processes.values() for pid in both)

        # Without a sweep, the supervisor's own deadline is first.
        until(lambda: not any(map(alive, processes["short"])), 90)
        assert time.monotonic() - began > 29
        assert all(map(alive, processes["orphan"]))
        assert ids["short"] in slots(up)

        code, report = sweep(up)
        found = rows(report, ours)
        assert code == 0, report
        assert report["incomplete"] == []
        freed = {name for name, row in found.items() if row["action"] == "freed"}
        assert freed == {ids["orphan"], ids["short"], *strays}
        assert "processes" in found[ids["orphan"]]["holds"]
        assert "processes" not in found[ids["short"]]["holds"]
        assert {"record", "slot"} <= {*found[ids["short"]]["holds"]}
        for name in freed:
            resources = {receipt["resource"] for receipt in found[name]["receipts"]}
            assert resources >= {what for step in BEFORE_THE_TASK for what in step.receipts}
            assert all(receipt["gone"] == "proved" for receipt in found[name]["receipts"])
        assert "terminated" in found[ids["orphan"]]["why"]
        assert not any(map(alive, processes["orphan"]))
        assert not any(planted(up))

        # What runs and what is protected goes on, and the next sweep says so in words.
        assert {*slots(up)} == {ids["owned"], ids["protected"]}
        assert all(alive(pid) for name in ("owned", "protected") for pid in processes[name])
        assert status(up, boxes["owned"])["state"] == "ready"
        again = up.run("fleet", "cleanup", *SOON)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "paddock-protect" in again.stdout
        by_itself = scheduled(up)
        assert (by_itself["passes"], by_itself["incomplete"]) == (1, [])
        assert rows(by_itself, ours) == {ids["protected"]: rows(by_itself, ours)[ids["protected"]]}
    finally:
        for sandbox in (ids[name] for name in ("orphan", "short", "protected") if name in ids):
            destroy(up, sandbox)
        for group in groups() if ROOT else ():
            unplant(group / f"local-local-1-{GROUP}")
        assert up.stop() == 0
    assert not seen.left(*ids.values(), *strays)
