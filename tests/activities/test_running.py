"""What every activity does alike: heartbeats while it works, and failures that the workflow can read."""

import asyncio

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import running
from activities.running import beating
from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError


async def test_it_beats_from_the_first_moment_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.01)
    environment, beats = ActivityEnvironment(), []
    enough = asyncio.Event()

    def beat(*details: object) -> None:
        beats.append(details)
        if len(beats) >= 3:
            enough.set()

    environment.on_heartbeat = beat

    async def work() -> None:
        async with beating(7):
            await asyncio.wait_for(enough.wait(), 5)

    await environment.run(work)
    after = len(beats)
    await asyncio.sleep(0.05)
    assert len(beats) == after
    assert set(beats) == {(7,)}


@pytest.mark.parametrize("kind", list(ErrorKind))
async def test_an_error_crosses_whole_and_is_tried_again_only_where_that_may_help(kind: ErrorKind) -> None:
    async def work() -> None:
        async with beating():
            raise PaddockError(kind, "what", field="where", remedy="what to do")

    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(work)
    failure = caught.value
    assert ErrorInfo.model_validate(failure.details[0]) == ErrorInfo(
        kind=kind, message="what", field="where", remedy="what to do"
    )
    assert failure.type == kind.value
    assert failure.non_retryable is (kind not in {ErrorKind.INTERNAL, ErrorKind.AUDIT_UNAVAILABLE})


async def test_what_is_no_error_of_paddocks_passes_as_it_is() -> None:
    async def work() -> None:
        async with beating():
            raise ConnectionResetError("the keeper died")

    with pytest.raises(ConnectionResetError):
        await ActivityEnvironment().run(work)
