"""audit_record_ms: one durable strict record through the real recorder process and client, one producer."""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import JsonValue

from bench.row import Row
from paddock.audit.client import AuditClient
from paddock.audit.recorder import RecorderConfig
from paddock.audit.recorder import main as recorder_main

TARGET_MS = 0.5
DETAIL: dict[str, JsonValue] = {
    "host": "api.example.com",
    "port": 443,
    "protocol": "http",
    "method": "GET",
    "path": "/repos/acme/site/issues/42",
}


def run(*, events: int = 3000, say: Callable[[str], None] = lambda _: None, base: Path = Path("build")) -> list[Row]:
    """The row, with a bare write and fdatasync of the same line as its peer; `base` must be on a real disk."""
    base.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-audit-", dir=base))
    pid = 0
    try:
        raw = _raw(directory / "raw", events)
        pid, box = _recorder(directory / "audit")
        times, rate = asyncio.run(_load(box, events))
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        shutil.rmtree(directory)
    say(f"bare write and fdatasync p50 {statistics.median(raw):.3f} ms; 100 producers {rate:.0f} durable events/s")
    return [
        Row(
            name="audit_record_ms",
            unit="ms",
            p50=statistics.median(times),
            p99=statistics.quantiles(times, n=100)[98],
            n=len(times),
            target=TARGET_MS,
            peer=statistics.median(raw),
        )
    ]


def _raw(path: Path, events: int) -> list[float]:
    line = b"x" * 520 + b"\n"
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for _ in range(events):
        start = time.perf_counter()
        os.write(descriptor, line)
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - start) * 1e3)
    os.close(descriptor)
    return times


def _recorder(directory: Path) -> tuple[int, socket.socket]:
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            config = RecorderConfig(directory=directory, host="bench", environment="local")
            recorder_main(its_control, config, Ed25519PrivateKey.generate())
        finally:
            os._exit(1)
    its_control.close()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(
        control, [json.dumps({"op": "adopt", "sandbox": "sb-bench", "owner": "bench"}).encode()], [its.fileno()]
    )
    its.close()
    control.detach()  # the recorder lives as long as its keeper's end is open
    return pid, ours


async def _load(box: socket.socket, events: int) -> tuple[list[float], float]:
    client = AuditClient(box)
    times = []
    for number in range(-100, events):
        start = time.perf_counter()
        await client.record("egress.intent", decision="allow", rule="api-read", action_id=f"a{number}", detail=DETAIL)
        if number >= 0:
            times.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    for _ in range(30):
        await asyncio.gather(*(client.record("egress.intent", decision="allow", detail=DETAIL) for _ in range(100)))
    rate = 3000 / (time.perf_counter() - start)
    client.close()
    return times, rate


def main() -> None:
    """Print the row, as JSON with --json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=3000)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    for row in run(events=chosen.events, say=print if not chosen.json else lambda _: None):
        print(json.dumps(row.__dict__) if chosen.json else row)


if __name__ == "__main__":
    main()
