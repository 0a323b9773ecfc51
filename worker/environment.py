"""The environment worker: calls to one environment's provider, with that environment's credentials only."""

import argparse
import asyncio
import logging
import signal
import sys
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.worker import Worker

from activities.environment import EnvironmentActivities
from paddock.contracts.errors import PaddockError
from paddock.contracts.names import CONTROL_QUEUE, HOST_POOL, ground_queue, pool_workflow_id
from paddock.contracts.pool import PoolSpec
from paddock.host.fork import die_with_parent
from paddock.temporal.connect import connect_patiently
from worker import schedules
from worker.settings import Settings, load

log = logging.getLogger(__name__)
QUICK = timedelta(seconds=0.5)


async def run(address: str, namespace: str, settings: Settings, open_pool: bool = False) -> None:
    """Work until SIGTERM. Raises PaddockError when the environment's provider or its credentials are not there."""
    provider = await asyncio.to_thread(settings.make_provider)
    client = await connect_patiently(address, namespace, f"environment/{settings.environment}")
    ground = EnvironmentActivities(settings.environment, provider, settings.controller, settings.user_data())
    worker = Worker(
        client,
        task_queue=ground_queue(settings.environment),
        activities=[
            ground.list_ground,
            ground.end_item,
            ground.fence_host,
            ground.create_host,
            ground.watch_host,
            ground.terminate_host,
        ],
        max_heartbeat_throttle_interval=QUICK,  # a cancel reaches an activity with its heartbeat
        default_heartbeat_throttle_interval=QUICK,
        graceful_shutdown_timeout=timedelta(seconds=5),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker:
        if settings.pool:
            await start_pool(client, settings.pool, open_pool)
        keeping = asyncio.ensure_future(schedules.keep(client, schedules.declared([settings.environment])))
        await stop.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def start_pool(client: Client, pool: PoolSpec, again: bool = False) -> None:
    """Its pool of hosts, if none runs; one that runs keeps its size, and one that was closed stays so unless `again`.

    One that failed, or was cancelled or terminated, starts anew: nobody decided there that it is over.
    """
    id_ = pool_workflow_id(pool.environment)
    reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE if again else WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
    try:
        await client.start_workflow(HOST_POOL, pool, id=id_, task_queue=CONTROL_QUEUE, id_reuse_policy=reuse)
    except WorkflowAlreadyStartedError:
        if (await client.get_workflow_handle(id_).describe()).status is WorkflowExecutionStatus.RUNNING:
            log.info("pool %s runs already; `paddock pool set` changes its size", id_)
        else:
            log.warning("pool %s was closed, and stays so; this worker's --open-pool opens it again", id_)


def main(argv: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("azure", "botocore", "boto3", "urllib3", "google", "sushy"):  # they log requests, and their headers
        logging.getLogger(name).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="paddock worker environment", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of Temporal")
    parser.add_argument("--namespace", default="default")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--environment", help="one whose machines join by themselves")
    one.add_argument("--config", type=Path, help="the environment's settings, as TOML")
    parser.add_argument("--open-pool", action="store_true", help="open the environment's pool also when it was closed")
    parser.add_argument("--parent", type=int, default=0, help="die with this process")
    given = parser.parse_args(argv)
    if given.parent:
        die_with_parent(given.parent)
    try:
        settings = load(given.config) if given.config else Settings(environment=given.environment)
        asyncio.run(run(given.address, given.namespace, settings, given.open_pool))
    except PaddockError as wrong:
        parser.exit(2, f"paddock worker environment: {wrong}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
