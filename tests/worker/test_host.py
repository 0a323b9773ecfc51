"""The host worker: a lost sandbox's workflow hears of it, that one and no other, however long Temporal is away."""

import asyncio
import importlib
from typing import Any, cast

import pytest
from temporalio.service import RPCError, RPCStatusCode

from paddock.contracts.hosts import SandboxRef
from worker import host as module
from worker.host import LATE_IMPORTS, Losses

REF = SandboxRef(sandbox_id="sb-0123456789abcdef0123", workflow_id="w", run_id="run-1", environment="e", host="h")


class Temporal:
    """Takes signals once it has failed as often as it was told to."""

    def __init__(self, *failures: RPCStatusCode) -> None:
        self.failures, self.tries = list(failures), 0
        self.signals: list[tuple[str, str | None, str, str]] = []
        self.over = asyncio.Event()

    def get_workflow_handle(self, workflow: str, *, run_id: str | None = None, **_: Any) -> Any:
        world = self

        class Handle:
            async def signal(self, name: str, why: str) -> None:
                world.tries += 1
                if world.failures:
                    failure = world.failures.pop(0)
                    if failure is RPCStatusCode.NOT_FOUND:
                        world.over.set()
                    raise RPCError("words of the server", failure, b"")
                world.signals.append((workflow, run_id, name, why))
                world.over.set()

        return Handle()


async def told(temporal: Temporal) -> Losses:
    losses = Losses(cast(Any, temporal))
    losses.tell(REF, "the VMM died")
    await asyncio.wait_for(temporal.over.wait(), 5)
    async with asyncio.timeout(5):
        while losses._tasks:
            await asyncio.sleep(0)
    return losses


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRY_AGAIN_S", 0.001)


async def test_exactly_the_run_that_owns_the_sandbox_is_told() -> None:
    temporal = Temporal()
    await told(temporal)
    assert temporal.signals == [("w", "run-1", "sandbox_lost", "the VMM died")]


async def test_a_server_that_is_away_is_asked_again_until_it_takes_it() -> None:
    temporal = Temporal(*[RPCStatusCode.UNAVAILABLE] * 5, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.INTERNAL)
    await told(temporal)
    assert len(temporal.signals) == 1


async def test_a_workflow_that_has_ended_is_not_asked_again() -> None:
    temporal = Temporal(RPCStatusCode.NOT_FOUND)
    await told(temporal)
    assert (temporal.tries, temporal.signals) == (1, [])


@pytest.mark.parametrize("name", LATE_IMPORTS)
def test_what_is_loaded_before_privilege_is_given_up_exists(name: str) -> None:
    importlib.import_module(name)
