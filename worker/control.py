"""The control worker: every workflow, and activities on the control plane's own store."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities import fleet
from activities.news import tell_sandboxes
from activities.policy import PolicyActivities
from activities.pool import count_sandboxes, stop_sandboxes, view_pool
from paddock.contracts.names import CONTROL_QUEUE
from paddock.host.fork import die_with_parent
from paddock.policy.store import PolicyStore
from paddock.temporal.connect import connect_patiently
from worker import schedules
from workflows.cleanup import FleetCleanup
from workflows.host import Host
from workflows.late import LateReader
from workflows.policy import PolicyRollout
from workflows.pool import HostPool
from workflows.sandbox import Sandbox

# Read once for all workflows, and not anew for each: they hold no state, read no clock (a house test looks), and cost
# a third of a workflow's processor time and memory otherwise. What defines workflows stays in the SDK's sandbox.
SHARED = (
    "workflows.asking",
    "workflows.decide",
    "workflows.decide_ground",
    "workflows.freeing",
    "workflows.ground",
    "workflows.outcome",
    "workflows.saga",
    "workflows.sizing",
    "workflows.steps",
    "workflows.verdicts",
)
RUNNER = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*SHARED))


async def run(address: str, namespace: str, policies: Path, key: Path, environments: Sequence[str]) -> None:
    """Work until SIGTERM."""
    client = await connect_patiently(address, namespace, "control")
    policy = PolicyActivities(PolicyStore(policies), Ed25519PrivateKey.from_private_bytes(key.read_bytes()))
    worker = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[Sandbox, Host, HostPool, PolicyRollout, LateReader, FleetCleanup],
        activities=[
            policy.resolve_policy,
            policy.store_policy,
            tell_sandboxes,
            view_pool,
            count_sandboxes,
            stop_sandboxes,
            *fleet.ON_CONTROL,
        ],
        workflow_runner=RUNNER,
        # Each costs 150 to 200 KiB here, and one that is not here its replay, some 20 ms, when something happens to it.
        max_cached_workflows=100,
        # One that waits here for its turn longer than a workflow task may take would be given out again.
        max_concurrent_workflow_tasks=16,
        # A control worker that was killed must not cost every open run ten seconds.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        graceful_shutdown_timeout=timedelta(seconds=5),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker:
        keeping = asyncio.ensure_future(schedules.keep(client, schedules.declared(environments)))
        await stop.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="paddock worker control", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of Temporal")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--policies", type=Path, required=True, help="directory of the policy store")
    parser.add_argument("--policy-key", type=Path, required=True, help="Ed25519 private key that signs policies")
    parser.add_argument("--environment", action="append", help="one whose sweeps are scheduled; `local` by default")
    parser.add_argument("--parent", type=int, default=0, help="die with this process")
    given = parser.parse_args(argv)
    if given.parent:
        die_with_parent(given.parent)
    environments = given.environment or ["local"]
    asyncio.run(run(given.address, given.namespace, given.policies, given.policy_key, environments))


if __name__ == "__main__":
    main(sys.argv[1:])
