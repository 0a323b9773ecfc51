"""What every activity does alike: heartbeats while it works, and failures that carry an ErrorInfo."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from temporalio import activity
from temporalio.exceptions import ApplicationError

from paddock.contracts.errors import ErrorKind, PaddockError

BEAT_S = 1.0
# Trying again may help: the service that was asked is being restarted.
RETRYABLE = frozenset({ErrorKind.INTERNAL, ErrorKind.AUDIT_UNAVAILABLE})


@contextlib.asynccontextmanager
async def beating(*details: object, undo: bool = False) -> AsyncIterator[None]:
    """Heartbeat until the block ends, and turn PaddockError into a failure that the workflow can read.

    An `undo` never fails for good: it is tried again until it answers, since nothing else comes after it.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(BEAT_S)

    beats = asyncio.get_running_loop().create_task(beat())
    try:
        yield
    except PaddockError as wrong:
        raise ApplicationError(
            wrong.info.message,
            wrong.info.model_dump(mode="json"),
            type=wrong.kind.value,
            non_retryable=not undo and wrong.kind not in RETRYABLE,
        ) from None
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
