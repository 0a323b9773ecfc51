"""The whole system as its user meets it: `paddock up`, then sandboxes started, ended, kept idle and woken."""

import asyncio
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.row import Row
from paddock.client.connect import Paddock
from paddock.client.sandbox import Sandbox

PADDOCK = str(Path(sys.executable).parent / "paddock")
STARTS = 40
ALIVE = 60
IDLE = 8
PAUSED_WITHIN_S = 10.0
ANSWERS_WITHIN_S = 1.0


def row(name: str, unit: str, samples: list[float], target: float | None = None) -> Row:
    """Median and 99th percentile of `samples`."""
    ordered = sorted(samples)
    return Row(
        name, unit, statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1], len(ordered), target
    )


@asynccontextmanager
async def running(slots: int) -> AsyncIterator[str]:
    """`paddock up` on a state directory of its own; the block gets Temporal's address."""
    with tempfile.TemporaryDirectory(prefix="paddock-bench-") as directory:
        config = Path(directory) / "config.json"
        config.write_text(json.dumps({"slots": slots}))
        argv = [PADDOCK, "up", "--state", f"{directory}/state", "--config", str(config), "--json"]
        up = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert up.stdout
            yield json.loads(await asyncio.to_thread(up.stdout.readline))["temporal"]
        finally:
            up.send_signal(signal.SIGINT)
            await asyncio.to_thread(up.wait, 120)


async def _start_to_output(paddock: Paddock) -> tuple[float, float]:
    """Milliseconds: a client's start to the first byte of output at that client; exit to the last receipt."""
    began = time.monotonic()
    box = await paddock.start(task={"argv": ["echo", "hello"]})
    first = 0.0
    async for _ in box.task(1).chunks():
        first = first or time.monotonic()
    over = time.monotonic()
    await box.result()
    ended = time.monotonic()
    await box.close()
    return (first - began) * 1e3, (ended - over) * 1e3


async def _answer(box: Sandbox) -> float:
    """Seconds until a sandbox, paused or not, ran a program and its output is here."""
    began = time.monotonic()
    run = await box.run(["echo", "here"])
    async for line in run.output():
        assert line.strip() == "here"
        break
    took = time.monotonic() - began
    await run.result()
    return took


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _supervisors() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("pd-"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def rows() -> list[Row]:
    """start_first_output_ms, end_last_receipt_ms, idle_pss_mib, alive."""
    async with running(ALIVE + 4) as address, Paddock.connect(address) as paddock:
        for _ in range(3):
            await _start_to_output(paddock)
        times = [await _start_to_output(paddock) for _ in range(STARTS)]
        measured = [
            row("start_first_output_ms", "ms", [first for first, _ in times], 450),
            row("end_last_receipt_ms", "ms", [end for _, end in times], 300),
        ]
        boxes: list[Sandbox] = []
        while len(boxes) < ALIVE:
            boxes.append(await paddock.start())
            await boxes[-1].run(["true"])
            if len(boxes) == IDLE:
                await asyncio.sleep(PAUSED_WITHIN_S / 2)
                pss = [_pss_mib(pid) + sum(map(_pss_mib, _children(pid))) for pid in _supervisors()]
                measured.append(row("idle_pss_mib", "MiB", pss, 60))
        await asyncio.sleep(PAUSED_WITHIN_S)
        answers = [await _answer(box) for box in boxes]
        answering = float(sum(took <= ANSWERS_WITHIN_S for took in answers))
        measured.append(Row("alive", "sandboxes", answering, answering, len(boxes), 50))
        measured.append(row("resumed_first_output_ms", "ms", [took * 1e3 for took in answers]))
        await asyncio.gather(*(box.stop("measured") for box in boxes))
        for box in boxes:
            await box.close()
    return measured
