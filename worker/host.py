"""The host worker: Temporal activities of one host. No secret, no privilege; killed at any moment, nothing is lost."""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import FixedSizeSlotSupplier, PollerBehaviorSimpleMaximum, Worker, WorkerTuner

from activities.audit import AuditActivities
from activities.credentials import CredentialActivities
from activities.fleet import HostFleetActivities
from activities.ground import HostActivities, Prover
from activities.place import PlaceActivities
from activities.sandbox import SandboxActivities
from activities.tasks import TaskActivities
from paddock import __version__
from paddock.contracts import names
from paddock.contracts.hosts import HostSpec, SandboxRef
from paddock.embedded import assets
from paddock.host.config import HostConfig, load
from paddock.host.fork import die_with_parent, drop_privileges
from paddock.host.gate import Gate, PlacementSlots
from paddock.host.link import KeeperLink, SupervisorLink
from paddock.host.objects import ObjectStore
from paddock.host.slots import Slots
from paddock.host.streams import StreamHost
from paddock.host.tidy import tidy
from paddock.host.users import Users
from paddock.temporal.connect import connect_patiently

log = logging.getLogger(__name__)
QUICK = timedelta(seconds=0.5)
TRY_AGAIN_S = 0.5
# Libraries import these when they first need them; without privilege their files may be out of reach.
LATE_IMPORTS = (
    "encodings.idna",
    "stringprep",
    "unicodedata",
    "concurrent.futures.thread",
    "websockets.asyncio.client",
    "websockets.http11",
    "tarfile",
    "tempfile",
    "traceback",
    "lzma",
    "bz2",
)


class Losses:
    """Tells a sandbox's workflow that its supervisor or VMM is gone, until Temporal has taken it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, ref: SandboxRef, why: str) -> None:
        task = asyncio.get_running_loop().create_task(self._tell(ref, why))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, ref: SandboxRef, why: str) -> None:
        # By its run: a later sandbox of the same name is another one, and lives.
        handle = self._client.get_workflow_handle(ref.workflow_id, run_id=ref.run_id)
        while True:
            try:
                await handle.signal("sandbox_lost", why)
                return
            except RPCError as wrong:
                if wrong.status is RPCStatusCode.NOT_FOUND:
                    return  # it ended meanwhile: its undo has looked, or the sweep will
                log.warning("telling %s that it is lost: %s", ref.workflow_id, wrong)
                await asyncio.sleep(TRY_AGAIN_S)


async def _join(client: Client, config: HostConfig) -> None:
    spec = HostSpec(
        environment=config.environment,
        host=config.host,
        relay=config.relay,
        slots=config.slots,
        attempt=config.attempt,
    )
    await client.start_workflow(
        names.HOST,
        spec,
        id=names.host_workflow_id(config.environment, config.host),
        task_queue=names.CONTROL_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="joined",
        start_signal_args=[spec],
        static_summary=f"host {config.host} of {config.environment}",
    )


def _images(config: HostConfig) -> frozenset[str]:
    """Names and digests of the images that this host can start."""
    found = assets.load(Path(config.cache)).images.values()
    return frozenset(name for image in found for name in (image.name, image.digest))


def _workers(
    client: Client,
    config: HostConfig,
    gate: Gate,
    keeper: KeeperLink,
    link: SupervisorLink,
    objects: ObjectStore,
    images: frozenset[str],
) -> list[Worker]:
    place = PlaceActivities(config, gate, images)
    turns = asyncio.Semaphore(len(os.sched_getaffinity(0)) + 1)
    sandbox = SandboxActivities(keeper, link, gate, config.caps, turns)
    tasks = TaskActivities(link, objects)
    revoke, audit = CredentialActivities(keeper), AuditActivities(config, keeper)
    undos = (revoke.revoke_credentials, sandbox.destroy_vm, audit.seal_audit, place.release_slot)
    prover = Prover(sandbox.boot_sandbox, config.default_shape, config.paths.root)
    host = HostActivities(keeper.inventory, undos, prover, gate.open)
    fleet = HostFleetActivities(config, keeper, gate.slots, objects)
    fixed = FixedSizeSlotSupplier(1)
    tuner = WorkerTuner.create_composite(
        workflow_supplier=fixed,
        activity_supplier=PlacementSlots(gate),
        local_activity_supplier=fixed,
        nexus_supplier=fixed,
    )
    environment, name = config.environment, config.host
    make = partial(
        Worker,
        client,
        build_id=f"paddock-{__version__}",  # else it reads every module's file, which it may not reach any more
        max_heartbeat_throttle_interval=QUICK,  # a cancel reaches an activity with its heartbeat
        default_heartbeat_throttle_interval=QUICK,
        graceful_shutdown_timeout=timedelta(seconds=1),
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
    )
    return [
        make(task_queue=names.slots_queue(environment), activities=[place.reserve_slot], tuner=tuner),
        make(
            task_queue=names.host_queue(environment, name),
            activities=[sandbox.boot_sandbox, sandbox.attach_policy, tasks.run_task, tasks.collect_outputs],
            max_concurrent_activities=2 * config.slots + 4,
        ),
        make(
            task_queue=names.host_control_queue(environment, name),
            activities=[
                place.release_slot,
                place.allow_caller,
                place.stop_placing,
                sandbox.destroy_vm,
                sandbox.extend_lease,
                revoke.revoke_credentials,
                audit.seal_audit,
                host.hold_host,
                host.check_host,
                host.prove_host,
                fleet.host_inventory,
                fleet.forget_leftovers,
            ],
            max_concurrent_activities=32,
        ),
    ]


async def run(config: HostConfig, token: str, images: frozenset[str]) -> None:
    """Work until SIGTERM, or until the keeper is gone (the next one starts another worker)."""
    client = await connect_patiently(config.temporal, config.namespace, f"host/{config.host}")
    paths = config.paths
    gate = Gate(Slots(paths.slots, config.slots))
    gate.slots.closed = config.attempt > 0  # a machine that was made has to prove itself first
    losses = Losses(client)
    keeper = KeeperLink(paths, losses.tell)
    await keeper.open()
    link = SupervisorLink(paths, gate.slots)
    objects = ObjectStore(paths.objects)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    made = _workers(client, config, gate, keeper, link, objects, images)
    workers = [asyncio.ensure_future(worker.run()) for worker in made]
    for held in await keeper.inventory():  # the table may be an older one, or lost: what runs holds its slot
        gate.slots.confirm(held.ref.sandbox_id, held.ref.workflow_id, held.caller_keys)
    streams: list[asyncio.Future[None]] = [asyncio.ensure_future(tidy(gate.slots, keeper, objects, paths))]
    if config.relay:
        served = StreamHost(
            relay=config.relay,
            environment=config.environment,
            host=config.host,
            token=token,
            link=link,
            objects=objects,
        )
        streams.append(asyncio.ensure_future(served.run()))
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await _join(client, config)
    paths.worker_ready.write_text("ready\n")
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait([stopped, *workers], return_when=asyncio.FIRST_COMPLETED)
    for task in (*workers, *streams):
        task.cancel()
    ended = await asyncio.gather(*workers, *streams, return_exceptions=True)
    await keeper.close()
    if not stopped.done():
        stopped.cancel()
        raise next((wrong for wrong in ended if isinstance(wrong, Exception)), RuntimeError("a worker ended by itself"))


def main(argv: list[str]) -> None:
    """`worker.host CONFIG [PARENT]`: reads what only its starter may read, gives up privilege, and works."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    config = load(Path(argv[0]))
    token = Path(config.relay_token_file).read_text().strip() if config.relay else ""
    images = _images(config)
    # Without privilege the absolute path may lead through what only its owner may search: relative ones need no way.
    os.chdir(config.state)
    config = config.model_copy(update={"state": "."})
    users = Users.here(config.uid_base)
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    drop_privileges(users.worker, users.service_gid)
    if len(argv) > 1:
        die_with_parent(int(argv[1]))
    asyncio.run(run(config, token, images))


if __name__ == "__main__":
    main(sys.argv[1:])
