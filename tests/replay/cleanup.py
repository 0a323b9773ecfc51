"""Scenarios of `FleetCleanup`: each kind of thing alone, since things are freed at the same time."""

from typing import Any

from paddock.contracts import fleet, names
from paddock.contracts.fleet import Hold
from paddock.contracts.ids import sandbox_id
from tests.replay.stage import Handle, Stage, scenario
from tests.replay.world import ENVIRONMENT, HOST

CLEANUP = names.FLEET_CLEANUP
OLD_S = 3600.0
GONE = sandbox_id("w", "r")
ORPHAN = fleet.Found(sandbox_id=GONE, workflow_id="w", run_id="r", age_s=OLD_S, holds=(Hold.RECORD, Hold.PROCESSES))


async def sweep(stage: Stage, **fields: Any) -> Handle:
    spec = fleet.CleanupSpec(environment=ENVIRONMENT, grace_s=1, between_s=1, host_s=1, **fields)
    return await stage.over(await stage.start(CLEANUP, spec))


def twice(stage: Stage, name: str, answer: object) -> None:
    stage.script.answers[name] = [answer, answer]


def holding(**fields: Any) -> fleet.HostInventory:
    return fleet.HostInventory(environment=ENVIRONMENT, host=HOST, **fields)


def running(host: str, state: str) -> fleet.OpenSandboxes:
    one = fleet.OpenSandbox(sandbox_id=GONE, workflow_id="w", run_id="r", host=host, state=state, age_s=OLD_S)
    return fleet.OpenSandboxes(open=(one,))


@scenario(CLEANUP, "finds-nothing")
async def finds_nothing(stage: Stage) -> Handle:
    return await sweep(stage)


@scenario(CLEANUP, "another-goes-on")
async def another_goes_on(stage: Stage) -> Handle:
    stage.script.answers["other_sweep"] = [fleet.OtherSweep(workflow_id="another")]
    return await sweep(stage)


@scenario(CLEANUP, "frees-an-orphan")
async def frees_an_orphan(stage: Stage) -> Handle:
    twice(stage, "host_inventory", holding(found=(ORPHAN,)))
    return await sweep(stage)


@scenario(CLEANUP, "would-free-an-orphan")
async def would_free(stage: Stage) -> Handle:
    twice(stage, "host_inventory", holding(found=(ORPHAN,)))
    return await sweep(stage, dry_run=True)


@scenario(CLEANUP, "spares-one-that-runs-after-all")
async def spares(stage: Stage) -> Handle:
    twice(stage, "host_inventory", holding(found=(ORPHAN,)))
    stage.script.answers["look_closely"] = [fleet.Closer(running=True, words="it runs")]
    return await sweep(stage)


@scenario(CLEANUP, "does-not-free-within-its-time")
async def not_in_time(stage: Stage) -> Handle:
    twice(stage, "host_inventory", holding(found=(ORPHAN,)))
    stage.script.hold.add("destroy_vm")
    stage.script.finish = False
    return await sweep(stage, undo_s=5)


@scenario(CLEANUP, "forgets-leftovers")
async def forgets(stage: Stage) -> Handle:
    twice(stage, "host_inventory", holding(left=(fleet.Left(sandbox_id=GONE, age_s=OLD_S, output=True),)))
    return await sweep(stage)


@scenario(CLEANUP, "tells-of-a-host-that-is-gone")
async def tells(stage: Stage) -> Handle:
    twice(stage, "list_sandboxes", running("another-host", "ready"))
    return await sweep(stage)


@scenario(CLEANUP, "finds-one-that-stays-ending")
async def stays_ending(stage: Stage) -> Handle:
    twice(stage, "list_sandboxes", running(HOST, "ending"))
    return await sweep(stage)


@scenario(CLEANUP, "reads-two-pages")
async def two_pages(stage: Stage) -> Handle:
    stage.script.answers["list_sandboxes"] = [fleet.OpenSandboxes(page="more")]
    return await sweep(stage)


@scenario(CLEANUP, "a-host-that-does-not-answer")
async def silent(stage: Stage) -> Handle:
    stage.script.answers["list_hosts"] = [fleet.OpenHosts(hosts=("nobody",))]
    return await sweep(stage)
