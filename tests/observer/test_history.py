"""What a workflow was given is found in its history, as JSON and as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.observer import Places, find_secret
from tests.observer.history import histories


def server() -> str | None:
    """A Temporal program: on PATH, or where set-up keeps its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddock" / "temporal"
    kept = sorted(str(path) for path in cache.glob("*/temporal") if os.access(path, os.X_OK))
    return shutil.which("temporal") or (kept[-1] if kept else None)


@contextlib.asynccontextmanager
async def running(program: str) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(RuntimeError):
                        await Client.connect(f"127.0.0.1:{port}")
                        break
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.skipif(server() is None, reason="no Temporal server on this machine; `make setup` brings one")
async def test_a_decoy_is_found_in_a_workflows_history() -> None:
    decoy, other = (f"decoy-{secrets.token_hex(20)}" for _ in range(2))
    program = server()
    assert program is not None
    async with running(program) as address:
        client = await Client.connect(address)
        await client.start_workflow("Nobody", {"env": {"TOKEN": decoy}}, id="w-1", task_queue="nobody")
        texts = await histories(address)
        for _ in range(200):  # the list of workflows follows a moment later
            if texts:
                break
            texts = await histories(address)
    scan = find_secret(decoy.encode(), Places(texts=texts))
    assert {finding.where.partition(" of ")[0] for finding in scan.found} >= {"history", "payloads in history"}
    assert find_secret(other.encode(), Places(texts=texts)).clean
