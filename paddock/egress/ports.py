"""What the fence needs from outside: a place to record, and a place to get secrets from."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue

from paddock.contracts.errors import ErrorKind, PaddockError


class SecretUnavailable(PaddockError):
    """A secret is missing, expired or out of reach; its words never hold a value."""

    def __init__(self, why: str) -> None:
        super().__init__(ErrorKind.SECRET_UNAVAILABLE, why)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's value until `expires_at` (seconds, on the gateway's clock); never shown in a repr."""

    value: bytes = field(repr=False)
    expires_at: float


class AuditPort(Protocol):
    """Where events go; `detail` is the kind's own object."""

    async def record(
        self, kind: str, *, decision: str = "", rule: str = "", action_id: str = "", detail: Mapping[str, JsonValue]
    ) -> None:
        """Returns once the event is durable; raises PaddockError when it can't be, and then nothing may happen."""

    def note(
        self, kind: str, *, decision: str = "", rule: str = "", action_id: str = "", detail: Mapping[str, JsonValue]
    ) -> None:
        """Buffers the event; a drop becomes a counted gap."""


class SecretsPort(Protocol):
    """Where secrets come from, one use at a time."""

    async def fetch(self, ref: str, *, rule: str, host: str, port: int, method: str, path: str) -> Secret:
        """The value for this one use; raises PaddockError when there is none."""


class GuestConnection(Protocol):
    """A captured connection of the guest: an asyncio transport that delivers nothing before `accept`."""

    def accept(self) -> None: ...
    def refuse(self, reason: str) -> None: ...
    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def can_write_eof(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


class Tasks:
    """Keeps a reference to every task until it is done, so that none vanishes or outlives its owner."""

    __slots__ = ("_running", "_stray")

    def __init__(self, stray: Callable[[BaseException], None]) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._stray = stray

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`; an exception of it that nobody handles goes to the owner."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel all and wait for them."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._stray(failure)
