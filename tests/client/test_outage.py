"""A start while the Temporal server is killed and comes back: the caller waits, and gets one sandbox, once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from paddock.client import Paddock
from paddock.contracts.report import Outcome
from paddock.embedded import temporal_binary
from paddock.embedded.assets import cache_dir
from paddock.embedded.server import Ports, TemporalServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TemporalServer]:
    """A server of this test's own, to be killed."""
    here = TemporalServer(Path(temporal_binary.load(cache_dir()).path), tmp_path / "server", Ports.free())
    here.spawn()
    asyncio.run(here.wait_ready())
    yield here
    here.stop()


@pytest.fixture
def temporal(server: TemporalServer) -> str:
    """In place of the one that other tests share."""
    return server.address


@pytest.mark.kill
@pytest.mark.parametrize("after_s", [0, 0.01, 0.05, 0.2, 1])
async def test_a_server_that_is_killed_during_a_start_costs_time_and_nothing_else(
    server: TemporalServer, paddock: Paddock, temporal_client: Client, after_s: float
) -> None:
    starting = asyncio.create_task(paddock.start(name="job", task={"argv": ["echo", "once"]}))
    await asyncio.sleep(after_s)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    await asyncio.sleep(0.5)
    server.spawn()
    await server.wait_ready()
    async with asyncio.timeout(90):
        box = await starting
        assert box.made
        assert [line async for line in box.task().output()] == ["once"]
        assert (await box.result()).outcome is Outcome.SUCCEEDED
        while not (runs := [run async for run in temporal_client.list_workflows('WorkflowId="sandbox/job"')]):
            await asyncio.sleep(0.1)
        assert [run.run_id for run in runs] == [box._handle.result_run_id]
