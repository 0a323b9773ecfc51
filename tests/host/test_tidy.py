"""What is left of ended sandboxes goes; what somebody may still ask for stays."""

from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

from paddock.host.objects import ObjectStore
from paddock.host.paths import HostPaths
from paddock.host.slots import REMEMBERED_S, Slots
from paddock.host.tidy import tidy_once

OLD, LATE, HELD = (f"sb-{n}" + "0" * 19 for n in "123")


async def test_only_what_nobody_may_ask_for_is_dropped(tmp_path: Path) -> None:
    now = 0.0
    paths, objects = HostPaths(tmp_path), ObjectStore(tmp_path / "objects")
    slots = Slots(tmp_path / "slots.json", 3, lambda: now)
    for name in (OLD, LATE, HELD):
        slots.confirm(name, "w", ())
        (paths.output / name).mkdir(parents=True)
        with objects.writer(name) as writer:
            writer.write(b"x")
            writer.commit()
    slots.release(OLD)
    now = REMEMBERED_S + 1
    slots.release(LATE)
    keeper = MagicMock(ask=AsyncMock())
    await tidy_once(slots, keeper, objects, paths)
    assert objects.sandboxes() == (LATE, HELD)
    keeper.ask.assert_awaited_once_with("forget", sandbox_id=OLD)
