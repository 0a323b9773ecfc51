"""`python -m paddock.relay`: one relay, started and watched by whoever reads its first line."""

import argparse
import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from pathlib import Path

from paddock.relay.server import serve

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; a parent that is dead already counts too."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this relay is gone")


async def _run(host: str, port: int, token: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    relay = await serve(host, port, token)
    sys.stdout.write(json.dumps({"relay": relay.address, "port": relay.port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await relay.close()


def main(argv: list[str] | None = None) -> int:
    """Run a relay until SIGTERM or SIGINT; one JSON line says where it listens. 2: wrong use, 1: the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m paddock.relay", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-file", type=Path, required=True, help="what hosts must show; mode 0600")
    parser.add_argument("--die-with", type=int, metavar="PID", help="die when this parent process dies")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if given.die_with is not None:
        _die_with(given.die_with)
    try:
        token = given.token_file.read_text().strip()
    except OSError as wrong:
        parser.error(f"--token-file: {wrong}")
    if not token:
        parser.error(f"--token-file: {given.token_file} is empty")
    try:
        asyncio.run(_run(given.host, given.port, token))
    except OSError as wrong:
        sys.stderr.write(f"relay: cannot listen on {given.host}:{given.port}: {wrong.strerror or wrong}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
