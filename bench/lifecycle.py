"""The lifecycle under load and loss: ends, cancels, a killed control worker, bursts, a thousand idle, a long replay."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from temporalio.client import WorkflowHistory
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner

from bench.row import Row
from bench.system import _pss_mib, row, running
from paddock.client.connect import Paddock
from paddock.client.sandbox import Sandbox
from paddock.contracts import names
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.temporal.connect import connect
from tests.replay.history import load, recorded
from tests.replay.replaying import replayer
from tests.replay.world import ENVIRONMENT, Script, World, server

T = TypeVar("T")
STOPS: Final = 20
CANCELS: Final = 10
KILLS: Final = 5
BURSTS: Final = 3
BURST: Final = 20
IDLE: Final = 1000
IDLE_AT_SERVER: Final = 200
PART: Final = 100
IDLE_STARTS_S: Final = 180.0
REPLAYS: Final = 5
REPLAYS_S: Final = 8.0
WINDOWS: Final = 4
WINDOW_S: Final = 3.0
SETTLED_S: Final = 3.0
PART_S: Final = 12.0
WITHIN_S: Final = 60.0
DAY_S: Final = 86_400
TICKS: Final = os.sysconf("SC_CLK_TCK")


async def rows() -> list[Row]:
    """Everything of this module; six minutes at most, with fewer samples on a machine that is busy."""
    return [*await real_rows(), *await played_rows(), await replay_row()]


async def repeated(what: Callable[[], Awaitable[T]], times: int, within_s: float = PART_S) -> list[T]:
    """So many samples, or as many as begin in time, and one at least."""
    ends, found = time.monotonic() + within_s, [await what()]
    while len(found) < times and time.monotonic() < ends:
        found.append(await what())
    return found


# On a real host


async def real_rows() -> list[Row]:
    """stop_last_receipt_ms, cancel_to_task_s, burst20_first_output_s, burst20_failed, control_killed_delay_s."""
    async with running(BURST + 4) as address, Paddock.connect(address) as paddock:
        for _ in range(3):
            await _stop_ms(paddock)
        stops = row("stop_last_receipt_ms", "ms", await repeated(lambda: _stop_ms(paddock), STOPS), 250)
        cancels = row("cancel_to_task_s", "s", await repeated(lambda: _cancel_s(paddock), CANCELS), 1.0)
        bursts = [one for burst in await repeated(lambda: _burst(paddock), BURSTS) for one in burst]
        failed = [one for one in bursts if not isinstance(one, float)]
        for why in failed:
            print(f"  a start of a burst failed: {type(why).__name__}: {why}", file=sys.stderr)
        first = [one for one in bursts if isinstance(one, float)] or [WITHIN_S]
        return [
            stops,
            cancels,
            row("burst20_first_output_s", "s", first, 4.0),
            Row("burst20_failed", "starts", float(len(failed)), float(len(failed)), len(bursts), 0),
            await _killed_row(paddock, address),
        ]


async def _stop_ms(paddock: Paddock) -> float:
    """From the update `stop` of a sandbox that ran a task to its report, in which every receipt is."""
    box = await paddock.start()
    await (await box.run(["true"])).result()
    began = time.monotonic()
    report = await box.stop("measured")
    took = time.monotonic() - began
    assert report.receipts
    await box.close()
    return took * 1e3


async def _cancel_s(paddock: Paddock) -> float:
    """From a cancel of the workflow to the end of the task's output: the program is gone then."""
    box = await paddock.start(task={"argv": ["sh", "-c", "echo here; exec sleep 600"]})
    began = 0.0
    async for _ in box.task(1).chunks():
        began = time.monotonic()
        await paddock.client.get_workflow_handle(box.workflow_id).cancel()
    took = time.monotonic() - began
    await box.result()
    await box.close()
    return took


async def _burst(paddock: Paddock) -> list[float | BaseException]:
    """Seconds from start to first output of each of many started at once, or what it failed by."""

    async def one() -> float:
        began = time.monotonic()
        box = await paddock.start(task={"argv": ["echo", "here"]})
        first = 0.0
        async for _ in box.task(1).chunks():
            first = first or time.monotonic()
        await box.result()
        await box.close()
        return first - began

    return await asyncio.gather(*(asyncio.wait_for(one(), WITHIN_S) for _ in range(BURST)), return_exceptions=True)


async def _killed_row(paddock: Paddock, address: str) -> Row:
    """How much longer a task of an open sandbox takes when the control worker dies just before; peer: one as usual."""
    box = await paddock.start()

    async def once() -> tuple[float, float]:
        usual = await _task_s(box)
        os.kill(control_worker(address), signal.SIGKILL)
        return usual, await _task_s(box) - usual

    pairs = await repeated(once, KILLS)
    await box.stop("measured")
    await box.close()
    killed = row("control_killed_delay_s", "s", [delay for _, delay in pairs], 4.0)
    return dataclasses.replace(killed, peer=statistics.median(usual for usual, _ in pairs))


async def _task_s(box: Sandbox) -> float:
    began = time.monotonic()
    run = await box.run(["true"])
    await run.result()
    await box.settle()
    return time.monotonic() - began


def control_worker(address: str) -> int:
    """The process that serves this Temporal's workflows."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "worker.control" in words and address in words:
                return int(entry.name)
    raise LookupError(f"no control worker of {address} runs")


# With a played host: the server and the control worker are the real ones


@asynccontextmanager
async def control(address: str) -> AsyncIterator[int]:
    """The control worker as `paddock up` starts it; the block gets its process id."""
    with tempfile.TemporaryDirectory(prefix="paddock-bench-") as directory:
        key = Path(directory) / "key"
        key.write_bytes(os.urandom(32))
        argv = [sys.executable, "-m", "worker.control", "--address", address, "--policies", f"{directory}/policies"]
        more = ["--policy-key", str(key), "--environment", ENVIRONMENT, "--parent", str(os.getpid())]
        silent = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*argv, *more, stdout=silent, stderr=silent)
        try:
            yield process.pid
        finally:
            process.terminate()
            await process.wait()


async def played_rows() -> list[Row]:
    """idle_workflow_kib, idle_control_cpu_percent, idle_server_cpu_percent, and what a stop costs without a host."""
    async with server() as temporal, control(temporal.address) as worker:
        assert temporal.process
        world = World(await connect(temporal.address))
        async with world.host():
            stops = await _played_stops(world)
            alone = statistics.median(await cpu_percent(temporal.process.pid))
            kib: list[float] = []
            with_some: list[float] = []
            ends = time.monotonic() + IDLE_STARTS_S
            while len(kib) * PART < IDLE and (len(kib) * PART < IDLE_AT_SERVER or time.monotonic() < ends):
                before, part = _pss_mib(worker), len(kib)
                await _idle_part(world, part)
                kib.append((_pss_mib(worker) - before) * 1024 / PART)
                if len(kib) * PART == IDLE_AT_SERVER:
                    await asyncio.sleep(SETTLED_S)
                    with_some = await cpu_percent(temporal.process.pid)
            await asyncio.sleep(SETTLED_S)
            control_cpu = row("idle_control_cpu_percent", "%", await cpu_percent(worker), 5)
            cost = row("idle_server_cpu_percent", "%", [max(0.0, one - alone) for one in with_some], 2)
            return [
                row("stop_played_host_ms", "ms", stops),
                Row("idle_workflow_kib", "KiB", statistics.fmean(kib), max(kib), len(kib) * PART, 60),
                control_cpu,
                dataclasses.replace(cost, peer=alone),
            ]


async def _idle(world: World, name: str) -> None:
    """A session that waits for its first task; nothing asks for its state, which would cost as much as its start."""
    script = world.scripts[f"idle/{name}"] = Script()
    spec = SandboxSpec(environment=ENVIRONMENT, lifetime_s=DAY_S, idle_s=DAY_S)
    await world.client.start_workflow(names.SANDBOX, spec, id=f"idle/{name}", task_queue=names.CONTROL_QUEUE)
    await asyncio.wait_for(script.has_entered("attach_policy").wait(), WITHIN_S)


async def _idle_part(world: World, part: int) -> None:
    turns = asyncio.Semaphore(BURST)

    async def one(number: int) -> None:
        async with turns:
            await _idle(world, f"{part}-{number}")

    await asyncio.gather(*(one(number) for number in range(PART)))
    await asyncio.sleep(1)


async def _played_stops(world: World) -> list[float]:
    async def once() -> float:
        name = str(time.monotonic_ns())
        await _idle(world, name)
        await asyncio.sleep(0.2)
        began = time.monotonic()
        handle = world.client.get_workflow_handle(f"idle/{name}")
        await handle.execute_update("stop", "measured", result_type=SandboxReport)
        return (time.monotonic() - began) * 1e3

    return await repeated(once, STOPS)


async def cpu_percent(pid: int) -> list[float]:
    """Processor time of a process in percent of one core, window by window."""
    found = []
    for _ in range(WINDOWS):
        before, began = _ticks(pid), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        found.append((_ticks(pid) - before) / TICKS / (time.monotonic() - began) * 100)
    return found


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# Replay


async def replay_row() -> Row:
    """replay_longest_ms, as a new control worker does it for a workflow that is woken; peer: without the sandbox."""
    histories = {name: load(name) for name in recorded()}
    longest = max(histories.values(), key=lambda history: len(history.events))
    measured = row("replay_longest_ms", "ms", await replay_ms(longest), 500)
    bare = statistics.median(await replay_ms(longest, UnsandboxedWorkflowRunner()))
    return dataclasses.replace(measured, peer=bare)


async def replay_ms(history: WorkflowHistory, runner: WorkflowRunner | None = None) -> list[float]:
    """Milliseconds of each replay; the first one, in which modules are read, does not count."""

    async def again() -> AsyncIterator[WorkflowHistory]:
        ends = time.monotonic() + REPLAYS_S
        for number in range(REPLAYS + 1):
            if number < 2 or time.monotonic() < ends:
                yield history

    took = []
    async with replayer(runner).workflow_replay_iterator(again()) as results:
        began = time.monotonic()
        async for result in results:
            if result.replay_failure is not None:
                raise result.replay_failure
            took.append((time.monotonic() - began) * 1e3)
            began = time.monotonic()
    return took[1:]
