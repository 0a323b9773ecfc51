"""The environment worker: calls to one environment's provider, with that environment's credentials only."""

import argparse
import asyncio
import signal
import sys
from datetime import timedelta

from temporalio.worker import Worker

from activities.environment import EnvironmentActivities
from paddock.contracts.names import ground_queue
from paddock.host.fork import die_with_parent
from paddock.temporal.connect import connect_patiently
from providers.joined import Joined


async def run(address: str, namespace: str, environment: str) -> None:
    """Work until SIGTERM."""
    client = await connect_patiently(address, namespace, f"environment/{environment}")
    ground = EnvironmentActivities(environment, Joined())
    worker = Worker(
        client,
        task_queue=ground_queue(environment),
        activities=[ground.list_ground, ground.fence_host],
        graceful_shutdown_timeout=timedelta(seconds=5),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker:
        await stop.wait()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="paddock worker environment", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of Temporal")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--environment", required=True)
    parser.add_argument("--parent", type=int, default=0, help="die with this process")
    given = parser.parse_args(argv)
    if given.parent:
        die_with_parent(given.parent)
    asyncio.run(run(given.address, given.namespace, given.environment))


if __name__ == "__main__":
    main(sys.argv[1:])
