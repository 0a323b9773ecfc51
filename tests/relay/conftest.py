from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.relay.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig, None]:
    """A relay with one connected host, on loopback."""
    rig = Rig(tmp_path)
    await rig.start_relay()
    host = await rig.start_host()
    await host.connected.wait()
    yield rig
    await rig.stop_host()
    await rig.stop_relay()
