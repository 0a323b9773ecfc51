"""The Temporal development server as `paddock up` starts it."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.names import NAMESPACE, SEARCH_ATTRIBUTES
from paddock.embedded import assets, temporal_binary
from paddock.embedded.server import DYNAMIC, LOOPBACK, Ports, TemporalServer


@pytest.fixture(scope="module")
def binary() -> Path:
    return Path(temporal_binary.load(assets.cache_dir()).path)


@pytest.fixture
def server(binary: Path, tmp_path: Path) -> Iterator[TemporalServer]:
    server = TemporalServer(binary, tmp_path / "temporal", Ports.free())
    yield server
    server.stop()


def until(happens: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    ends = time.monotonic() + deadline_s
    while not happens():
        assert time.monotonic() < ends, f"{what} did not happen within {deadline_s} s"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


async def test_answers_with_its_search_attributes_registered(server: TemporalServer) -> None:
    server.spawn()
    await server.wait_ready(30)
    client = await Client.connect(server.address)
    known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=NAMESPACE))
    assert SEARCH_ATTRIBUTES.keys() <= known.custom_attributes.keys()


async def test_comes_back_on_the_same_ports_with_its_history_after_a_kill(server: TemporalServer) -> None:
    first = server.spawn()
    await server.wait_ready(30)
    client = await Client.connect(server.address)
    handle = await client.start_workflow("Nobody", id="kept", task_queue="nobody-polls")
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    server.spawn()
    await server.wait_ready(30)
    again = await Client.connect(server.address)
    description = await again.get_workflow_handle("kept").describe()
    assert description.run_id == handle.result_run_id


async def test_listens_on_loopback_only(server: TemporalServer) -> None:
    process = server.spawn()
    await server.wait_ready(30)
    inodes = {os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir() if fd.exists() or fd.is_symlink()}
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    listening = {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}
    assert len(listening) >= 4
    loopback = socket.inet_aton(LOOPBACK)[::-1].hex().upper()
    assert {address.split(":")[0] for address in listening} == {loopback}


async def test_keeps_its_database_in_wal_mode(server: TemporalServer) -> None:
    server.spawn()
    await server.wait_ready(30)
    with sqlite3.connect(server.directory / "temporal.sqlite") as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_dies_with_its_parent(binary: Path, tmp_path: Path) -> None:
    ports = Ports.free()
    script = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from paddock.embedded.server import Ports, TemporalServer
        server = TemporalServer(Path({str(binary)!r}), Path({str(tmp_path)!r}), Ports(*{tuple(ports)!r}))
        process = server.spawn()
        asyncio.run(server.wait_ready(30))
        print(process.pid, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait(10)
        until(lambda: gone(child), "the server's death")


def test_a_taken_port_is_refused_before_anything_starts(binary: Path, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        with pytest.raises(PaddockError, match=f"port {port} .* is taken") as caught:
            Ports.free(grpc=port)
        assert caught.value.kind is ErrorKind.SET_UP
        fresh = Ports.free()
        server = TemporalServer(binary, tmp_path, Ports(port, fresh.ui, fresh.http, fresh.metrics))
        with pytest.raises(PaddockError, match="is taken"):
            server.spawn()
        assert server.process is None


async def test_a_server_that_ends_while_starting_is_told_with_its_own_words(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "temporal.sqlite").mkdir()
    server = TemporalServer(binary, tmp_path, Ports.free())
    server.spawn()
    with pytest.raises(PaddockError, match="ended with") as caught:
        await server.wait_ready(30)
    assert caught.value.kind is ErrorKind.UNREACHABLE
    assert "temporal.log" in caught.value.info.remedy


def test_free_ports_differ_and_lie_outside_the_range_of_outgoing_connections() -> None:
    ports = list(Ports.free())
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 4
    assert all(port < lowest for port in ports) or lowest <= 16000


def test_the_settings_that_make_activities_fast_are_given(binary: Path, tmp_path: Path) -> None:
    argv = TemporalServer(binary, tmp_path, Ports(1, 2, 3, 4))._argv()
    assert "history.transferProcessorMaxPollRPS=2000" in argv
    assert all(f"{name}={value}" in argv for name, value in DYNAMIC.items())
