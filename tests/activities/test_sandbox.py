"""Booting on a host: in turns, so that the first guests are ready before the last ones begin."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from temporalio.testing import ActivityEnvironment

from activities.sandbox import SandboxActivities
from paddock.contracts.hosts import Boot, SandboxRef
from paddock.contracts.spec import Shape
from paddock.host.config import Caps
from paddock.host.gate import Gate
from paddock.host.link import KeeperLink, SupervisorLink
from paddock.host.messages import Answer, Ask
from paddock.host.slots import Slots


@dataclass
class Machine:
    """A keeper and supervisors whose guests are ready when told."""

    booting: set[str] = field(default_factory=set)
    most: int = 0
    ready: dict[str, asyncio.Event] = field(default_factory=dict)

    async def ask(self, what: str, question: Ask | None = None, **more: Any) -> Answer:
        if what == "boot":
            self.booting.add(more["boot"].ref.sandbox_id)
            self.most = max(self.most, len(self.booting))
            return Answer()
        await self.ready.setdefault(what, asyncio.Event()).wait()
        self.booting.discard(what)
        return Answer(parts_ms={"hello": 1.0})


def boot(number: int) -> Boot:
    ref = SandboxRef(sandbox_id=f"sb-{number:020d}", workflow_id=f"w{number}", run_id="r", environment="e", host="h")
    return Boot(ref=ref, image="base", shape=Shape(), lease_end=datetime.now(UTC) + timedelta(hours=1))


async def until(what: Any) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0)


async def test_guests_boot_in_turns_and_one_that_is_ready_or_cancelled_gives_its_turn_on(tmp_path: Path) -> None:
    machine, gate = Machine(), Gate(Slots(tmp_path / "slots.json", 5))
    keeper, supervisors = cast(KeeperLink, machine), cast(SupervisorLink, machine)
    sandbox = SandboxActivities(keeper, supervisors, gate, Caps(), asyncio.Semaphore(2))
    boots = [boot(number) for number in range(5)]
    for one in boots:
        gate.reserve(one.ref.sandbox_id, one.ref.workflow_id, ())
    runs = [asyncio.ensure_future(ActivityEnvironment().run(sandbox.boot_sandbox, one)) for one in boots]
    await until(lambda: len(machine.booting) == 2)
    confirmed = [gate.slots.get(one.ref.sandbox_id) for one in boots]
    assert all(slot and slot.confirmed for slot in confirmed), "a slot does not lapse while its boot waits for its turn"
    runs[1].cancel()
    await until(lambda: len(machine.ready) == 3)
    machine.booting.discard(boots[1].ref.sandbox_id)
    for one in boots:
        machine.ready.setdefault(one.ref.sandbox_id, asyncio.Event()).set()
    done = await asyncio.gather(*runs, return_exceptions=True)
    assert [getattr(one, "parts_ms", None) is not None for one in done] == [True, False, True, True, True]
    assert machine.most <= 3
