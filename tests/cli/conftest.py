"""The program itself, as a process, against sandboxes that are played."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.conftest import Playing, playing, temporal

__all__ = ["Playing", "playing", "temporal"]


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str


@dataclass
class Program:
    """`paddock` with an environment that names nothing of this machine's."""

    directory: Path
    address: str | None = None

    async def start(self, *argv: str) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL", "PADDOCK"))}
        environ |= {"PADDOCK_STATE": str(self.directory / "state"), "PYTHONPATH": os.pathsep.join(sys.path)}
        if self.address:
            environ["TEMPORAL_ADDRESS"] = self.address
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "paddock.cli.app",
            *argv,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self, process: asyncio.subprocess.Process) -> Ended:
        try:
            async with asyncio.timeout(40):
                out, err = await process.communicate()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            raise
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def __call__(self, *argv: str) -> Ended:
        return await self.end(await self.start(*argv))


@pytest.fixture
def program(temporal: str, playing: Playing, tmp_path: Path) -> Program:
    return Program(tmp_path, temporal)


@pytest.fixture
def alone(tmp_path: Path) -> Program:
    """The program where nothing runs."""
    return Program(tmp_path)


async def until(what: Callable[[], Awaitable[bool]], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not await what():
            await asyncio.sleep(0.05)
