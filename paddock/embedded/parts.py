"""The processes of `paddock up`: started with their parent's life as their own, and started again when they die."""

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError

RESTART_S: Final = 0.05
SLOW_RESTART_S: Final = 1.0
SOON_S: Final = 2.0
POLL_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1


# Keys and tokens of whoever starts us have no business in processes that parse a guest's bytes.
PASSED_ON: Final = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")
PASSED_ON_PREFIXES: Final = ("LC_", "PYTHON")


def plain_environment() -> dict[str, str]:
    """The part of this process's environment that the parts get."""
    return {n: v for n, v in os.environ.items() if n in PASSED_ON or n.startswith(PASSED_ON_PREFIXES)}


def spawn(
    argv: list[str], log: Path, environment: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    """Start a part in a session of its own (Ctrl-C goes to its parent only), to be killed when its parent dies."""
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=tie,
            pass_fds=pass_fds,
            env=environment or plain_environment(),
        )


@dataclass
class Part:
    """One process: how to start it, and what runs now."""

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0


class Parts:
    """Parts in the order of their start; watched until `stop`."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._watch: asyncio.Task[None] | None = None

    def add(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> Part:
        """Start a part now."""
        part = Part(name, start)
        self._start(part)
        self._parts.append(part)
        return part

    def pids(self) -> dict[str, int]:
        return {part.name: part.pid for part in self._parts}

    def watch(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._again())

    def check(self) -> None:
        """Raises PaddockError when a part ended although nobody asked it to."""
        for part in self._parts:
            if part.process and part.process.poll() is not None:
                raise PaddockError(
                    ErrorKind.SET_UP,
                    f"{part.name} ended with {part.process.returncode} while starting",
                    remedy="read its log in the state directory's logs; `paddock doctor` checks this machine",
                )

    async def stop(self, grace_s: float = 10.0) -> None:
        """End every part, the last one first, and see each gone."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for part in reversed(self._parts):
            if part.process is None or part.process.poll() is not None:
                continue
            part.process.terminate()
            deadline = time.monotonic() + grace_s
            while part.process.poll() is None:
                if time.monotonic() > deadline:
                    part.process.kill()
                await asyncio.sleep(POLL_S)

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            for part in self._parts:
                if part.process and part.process.poll() is not None:
                    soon = time.monotonic() - part.began < SOON_S
                    await asyncio.sleep(SLOW_RESTART_S if soon else RESTART_S)
                    try:
                        self._start(part)
                    except PaddockError:
                        await asyncio.sleep(SLOW_RESTART_S)  # its port is still taken

    def _start(self, part: Part) -> None:
        part.began = time.monotonic()
        part.process = part.start()
