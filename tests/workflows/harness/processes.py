"""The processes that are really killed: a warm process forks control and host workers, and tells their pids."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from paddock.contracts import names
from paddock.host.fork import die_with_parent
from paddock.temporal.connect import connect
from tests.workflows.harness import planted
from tests.workflows.harness.activities import by_queue
from tests.workflows.harness.plan import PLANS, REAL
from worker.control import RUNNER
from workflows.saga import Where
from workflows.sandbox import Sandbox

HOST = "h1"
ROOT = Path(__file__).resolve().parents[3]
QUICK = timedelta(seconds=0.1)


@dataclass(frozen=True, slots=True)
class Order:
    """A worker to start: for `place`, a control queue or an environment."""

    role: str
    place: str
    address: str
    worlds: str
    log: str
    plan: str = REAL.name
    mistake: str = ""
    cached: int = 1000
    grace_s: float = 0.0


async def control(order: Order) -> None:
    """A control worker; with another plan, or a mistake planted in the workflow, without Temporal's sandbox."""
    plan = PLANS[order.plan]
    changed = plan is not REAL or bool(order.mistake)
    if changed:
        planted.use(plan)
        planted.plant(order.mistake)
    made = by_queue(plan.calls, Path(order.worlds), HOST)
    worker = Worker(
        await connect(order.address),
        task_queue=order.place,
        workflows=[Sandbox],
        activities=made[Where.CONTROL],
        workflow_runner=UnsandboxedWorkflowRunner() if changed else RUNNER,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_cached_workflows=order.cached,
        graceful_shutdown_timeout=timedelta(seconds=order.grace_s),
    )
    await _until_sigterm([worker])


async def host(order: Order) -> None:
    """All workers of one host."""
    made = by_queue(PLANS[order.plan].calls, Path(order.worlds), HOST)
    client = await connect(order.address)
    queues = {
        Where.SLOTS: names.slots_queue(order.place),
        Where.HOST: names.host_queue(order.place, HOST),
        Where.HOST_CONTROL: names.host_control_queue(order.place, HOST),
    }
    await _until_sigterm(
        [
            Worker(
                client,
                task_queue=queue,
                activities=made[where],
                max_heartbeat_throttle_interval=QUICK,
                default_heartbeat_throttle_interval=QUICK,
                graceful_shutdown_timeout=timedelta(seconds=order.grace_s),
            )
            for where, queue in queues.items()
        ]
    )


async def _until_sigterm(workers: list[Worker]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        await stop.wait()


def _child(order: Order, parent: int) -> None:
    die_with_parent(parent)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for fd in (1, 2):
        os.dup2(log, fd)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    asyncio.run({"control": control, "host": host}[order.role](order))


def main() -> None:
    """Read orders, one a line; answer a pid for each. Ends with its input, and all of its workers with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    parent = os.getpid()
    for line in sys.stdin.buffer:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(order, parent)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)


class Workers:
    """Starts and kills worker processes; `close` ends all of them."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address, self.worlds, self.logs = address, directory / "worlds", directory / "logs"
        for made in (self.worlds, self.logs):
            made.mkdir()
        argv = [sys.executable, "-m", "tests.workflows.harness.processes"]
        self._warm = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self._count = 0
        self.number = self._warm.pid
        self.shared: set[tuple[str, str]] = set()  # of these, one is enough for all

    def start(self, role: str, place: str, **more: Any) -> "Process":
        self._count += 1
        log = self.logs / f"{self._count:03}-{role}.log"
        order = Order(role, place, self.address, str(self.worlds), str(log), **more)
        to, back = self._pipes()
        to.write(json.dumps(asdict(order)).encode() + b"\n")
        to.flush()
        return Process(int(back.readline()), log)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._warm.stdin
        assert self._warm.stdout
        return self._warm.stdin, self._warm.stdout

    def close(self) -> None:
        self._warm.communicate(timeout=20)


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process."""

    pid: int
    log: Path

    @property
    def alive(self) -> bool:
        return alive(self.pid)

    async def end(self, how: int = signal.SIGKILL) -> None:
        if self.alive:
            os.kill(self.pid, how)
        async with asyncio.timeout(20):
            while self.alive:
                await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


if __name__ == "__main__":
    main()
