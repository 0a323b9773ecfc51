"""`paddock up` as the demo starts it: one process, one line when it is ready, Ctrl-C to end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from examples.demo.servers import Servers
from examples.demo.settings import Settings, child_environment

PADDOCK = Path(sys.executable).parent / "paddock"
READY_S, END_S = 300.0, 90.0


class StageFailed(Exception):
    """A part of the product did not do what was asked; the message holds its own words."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, as its ready line says."""

    temporal: str
    ui: str
    state: Path
    pids: dict[str, int]


@contextlib.asynccontextmanager
async def stage(settings: Settings, servers: Servers) -> AsyncIterator[Stage]:
    """`paddock up` for the length of the block; on the way out it ends its sandboxes with receipts, then itself."""
    _fresh(settings)
    config = settings.directory / "operator.yaml"
    config.write_text(yaml.safe_dump({"connections": list(servers.connections)}))
    log = settings.directory / "up.log"
    with log.open("wb") as errors:
        up = await asyncio.create_subprocess_exec(
            PADDOCK,
            *("up", "--state", str(settings.state), "--config", str(config), "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C on the terminal comes to the demo alone, which decides the order
        )
    try:
        yield await _ready(up, log)
    finally:
        await _end(up)


async def _ready(up: asyncio.subprocess.Process, log: Path) -> Stage:
    assert up.stdout is not None
    try:
        line = await asyncio.wait_for(up.stdout.readline(), READY_S)
        ready: dict[str, Any] = json.loads(line)
        return Stage(ready["temporal"], ready["ui"], Path(ready["state"]), dict(ready["pids"]))
    except (TimeoutError, ValueError, KeyError) as error:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise StageFailed(f"`paddock up` is not ready ({error!r}):\n{said}") from None


async def command(*arguments: str, settings: Settings, stdin: str = "", fine: tuple[int, ...] = (0,)) -> str:
    """Run one `paddock` command on the demo's state; its standard output. Values go in by standard input only."""
    child = await asyncio.create_subprocess_exec(
        PADDOCK,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**child_environment(), "PADDOCK_STATE": str(settings.state)},
    )
    try:
        output, errors = await asyncio.wait_for(child.communicate(stdin.encode()), 120)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    if child.returncode not in fine:
        words = (errors + output).decode(errors="replace").strip()
        raise StageFailed(f"`paddock {' '.join(arguments[:2])}` ended with {child.returncode}: {words}")
    return output.decode(errors="replace")


async def _end(up: asyncio.subprocess.Process) -> None:
    """Ask, wait, and only then kill; asked again by an impatient Ctrl-C it still waits for the receipts."""
    if up.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        up.send_signal(signal.SIGINT)
    waiting = asyncio.ensure_future(asyncio.wait_for(up.wait(), END_S))
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.shield(waiting)
    if up.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            up.kill()
        await up.wait()


def _fresh(settings: Settings) -> None:
    """An empty state directory, unless an earlier run left sandboxes in it that `paddock up` takes back and ends."""
    run = settings.state / "host" / "run"
    if run.is_dir() and os.listdir(run):
        return
    shutil.rmtree(settings.state, ignore_errors=True)
    settings.state.mkdir(parents=True)
