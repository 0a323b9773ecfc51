"""The fence under load: keep-alive TLS on both sides, 1 KiB answers, one injected header, audit off; direct beside it.

The server and the load run on one processor, the fence on the other. `python -m bench.fence` prints a table.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, cast

import uvloop

from bench.row import Row
from paddock.egress.config import Connection
from paddock.egress.gateway import Gateway
from tests.servers.certs import TestCa
from tests.servers.shim import Guest, MemorySecrets, NoAudit, policy

HOST = "api.bench.example"
SECRET = b"bench-secret-0123456789abcdef"
BODY = bytes(1024)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\n\r\n" + BODY
FIELDS = "User-Agent: bench/1\r\nAccept: */*\r\nAuthorization: x\r\n"
REQUEST = f"GET /api/items HTTP/1.1\r\nHost: {HOST}\r\n{FIELDS}\r\n".encode()
RULES = 100


def bench_policy() -> str:
    """100 rules, one of them with a secret."""
    rules = "".join(
        f"    - id: r{i}\n      to: {{host: svc{i}.example.com, port: 443, protocol: http}}\n"
        f"      allow: [{{methods: [GET], path: /v1/**}}]\n"
        for i in range(RULES - 1)
    )
    return (
        "apiVersion: paddock/v1\nkind: Policy\nmetadata: {name: bench, scope: sandbox}\nspec:\n  network:\n"
        f"{rules}    - id: api\n      to: {{host: {HOST}, port: 443, protocol: http}}\n"
        "      allow: [{methods: [GET, POST], path: /api/**}]\n"
        "  secrets:\n    - {ref: token, rule: api, in: header, as: bearer}\n"
    )


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


class _Client(asyncio.Protocol):
    """Sends the next request when an answer is whole; `times` are seconds."""

    def __init__(self, until: float, times: list[float]) -> None:
        self._until, self._times = until, times
        self._got, self._sent = b"", 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not (self._got.endswith(b"0\r\n\r\n") or len(self._got) == len(ANSWER)):
            return
        if not self._got.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self._got[:200].decode("latin-1")))
            return
        now = time.perf_counter()
        self._times.append(now - self._sent)
        self._got = b""
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the connection was lost"))


def _pin(cpu: int) -> None:
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {available[cpu % len(available)]})


def _serve(directory: str, pipe: Pipe) -> None:
    async def main() -> None:
        ca = TestCa(Path(directory))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Server, "127.0.0.1", 0, ssl=ca.server_context(HOST))
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)

    _pin(1)
    uvloop.run(main())


def _fence(directory: str, port: int, pipe: Pipe) -> None:
    async def main() -> None:
        connection = Connection(name=HOST, port=443, address=f"127.0.0.1:{port}", ca=Path(directory) / "ca.pem")
        gateway = Gateway(
            sandbox="sb-bench",
            connections=(connection,),
            audit=NoAudit(),
            secrets=MemorySecrets({"token": SECRET}),
            clock=time.time,
        )
        gateway.apply(policy(bench_policy()))
        guest = Guest(gateway)
        address = await guest.look_up(HOST)
        assert address is not None
        pipe.send((await guest.listen(address, 443), gateway.ca_pem.decode()))
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv):
            pipe.send(time.process_time())
        await guest.close()
        await gateway.close()

    _pin(0)
    uvloop.run(main())


async def _load(port: int, context: ssl.SSLContext, connections: int, seconds: float) -> tuple[float, list[float]]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    begin = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Client(begin + seconds, times), "127.0.0.1", port, ssl=context, server_hostname=HOST
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return len(times) / (time.perf_counter() - begin), times


def _percentile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def run(*, seconds: float = 3.0, connections: int = 32, say: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Rows `fence_rps` and `fence_added_ms`, each with the direct peer of the same run."""
    multi = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        server_pipe, server_end = multi.Pipe()
        server = multi.Process(target=_serve, args=(directory, server_end), daemon=True)
        server.start()
        port = server_pipe.recv()
        fence_pipe, fence_end = multi.Pipe()
        fence = multi.Process(target=_fence, args=(directory, port, fence_end), daemon=True)
        fence.start()
        fenced_port, ca = fence_pipe.recv()
        before = os.sched_getaffinity(0)
        _pin(1)
        try:
            return _measure(Path(directory), port, fenced_port, ca, fence_pipe, seconds, connections, say)
        finally:
            os.sched_setaffinity(0, before)
            fence_pipe.send(False)
            server_pipe.send(False)
            for process in (fence, server):
                process.join(5)
                process.kill()


def _measure(
    directory: Path,
    port: int,
    fenced_port: int,
    ca: str,
    fence: Pipe,
    seconds: float,
    connections: int,
    say: Callable[[str], None],
) -> list[Row]:
    direct_context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    fenced_context = ssl.create_default_context(cadata=ca)

    def cpu() -> float:
        fence.send(True)
        return float(cast(Any, fence.recv()))

    def load(where: int, context: ssl.SSLContext, count: int) -> tuple[float, list[float]]:
        return uvloop.run(_load(where, context, count, seconds))

    load(fenced_port, fenced_context, 2)
    _, one_direct = load(port, direct_context, 1)
    _, one_fenced = load(fenced_port, fenced_context, 1)
    direct_rps, _ = load(port, direct_context, connections)
    start = cpu()
    rps, times = load(fenced_port, fenced_context, connections)
    cost_us = (cpu() - start) / len(times) * 1e6
    say(f"direct {direct_rps:.0f}/s, fenced {rps:.0f}/s, {cost_us:.0f} us of processor a request")
    added = (statistics.median(one_fenced) - statistics.median(one_direct)) * 1e3
    added_p99 = (_percentile(one_fenced, 0.99) - _percentile(one_direct, 0.99)) * 1e3
    return [
        Row(name="fence_rps", unit="1/s", p50=rps, p99=rps, n=len(times), target=5000, peer=direct_rps),
        Row(name="fence_added_ms", unit="ms", p50=added, p99=added_p99, n=len(one_fenced), target=0.5, peer=0.0),
    ]


def main() -> None:
    """Print the rows, as JSON with --json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    rows = run(seconds=chosen.seconds, connections=chosen.connections, say=print)
    for row in rows:
        print(json.dumps(row.__dict__) if chosen.json else row)


if __name__ == "__main__":
    main()
