"""A relay, a host with sandboxes in memory, and callers: real sockets, real keys, no sandbox."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from paddock.client.keys import CallerKey
from paddock.client.stream import Streams
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import TaskResult
from paddock.contracts.streams import Chunk
from paddock.host.objects import ObjectStore
from paddock.host.streams import StreamHost
from paddock.relay.server import Relay, serve

SANDBOX = "sb-" + "0123456789" * 2
T = TypeVar("T")
TOKEN = "a host's token"
ENVIRONMENT, HOST = "local", "box-1"


@dataclass
class Output:
    """A task's output in memory: what came so far, and whether it ended; the cursor counts bytes."""

    data: bytearray = field(default_factory=bytearray)
    done: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    piece: int = 32 << 10
    done_as: TaskDone | None = None
    lost: bool = False

    async def add(self, data: bytes) -> None:
        async with self.changed:
            self.data += data
            self.changed.notify_all()

    async def lose(self) -> None:
        """Its sandbox dies."""
        self.lost = True
        await self.end()

    async def end(self) -> None:
        async with self.changed:
            self.done = True
            self.changed.notify_all()


@dataclass
class Link:
    """The sandboxes of a host."""

    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: dict[tuple[str, int], Output] = field(default_factory=dict)
    handed_out: int = 0
    following: int = 0

    def caller_keys(self, sandbox_id: str) -> tuple[str, ...]:
        return self.keys.get(sandbox_id, ())

    def output(self, task: int = 1, sandbox_id: str = SANDBOX) -> Output:
        return self.outputs.setdefault((sandbox_id, task), Output())

    async def follow(self, sandbox_id: str, task: int, cursor: int) -> AsyncGenerator[Chunk | TaskDone, None]:
        output = self.output(task, sandbox_id)
        self.following += 1
        try:
            while True:
                async with output.changed:
                    while len(output.data) <= cursor and not output.done:
                        await output.changed.wait()
                    data = bytes(output.data[cursor : cursor + output.piece])
                if output.lost:
                    raise PaddockError(ErrorKind.SANDBOX_LOST, "the sandbox ended before the task did")
                if not data:
                    yield output.done_as or TaskDone(result=TaskResult(exit=0, output_bytes=len(output.data)))
                    return
                cursor += len(data)
                self.handed_out += len(data)
                yield Chunk(1, cursor, data)
        finally:
            self.following -= 1


class Rig:
    """Starts and stops each part on its own, as a kill would."""

    def __init__(self, directory: Path) -> None:
        self.link = Link()
        self.key = CallerKey()
        self.link.keys[SANDBOX] = (self.key.public,)
        self.objects = ObjectStore(directory / "objects", max_bytes=64 << 20)
        self.relay: Relay | None = None
        self._hosts: list[asyncio.Task[None]] = []

    @property
    def address(self) -> str:
        assert self.relay is not None
        return self.relay.address

    async def start_relay(self, port: int = 0) -> None:
        self.relay = await serve("127.0.0.1", port, TOKEN)

    async def start_host(self, token: str = TOKEN) -> StreamHost:
        host = StreamHost(
            relay=self.address, environment=ENVIRONMENT, host=HOST, token=token, link=self.link, objects=self.objects
        )
        self._hosts.append(asyncio.create_task(host.run()))
        return host

    async def stop_host(self) -> None:
        for task in self._hosts:
            task.cancel()
        await asyncio.gather(*self._hosts, return_exceptions=True)
        self._hosts.clear()

    async def stop_relay(self) -> int:
        assert self.relay is not None
        await self.relay.close()
        return self.relay.port

    def caller(self, key: CallerKey | None = None, sandbox_id: str = SANDBOX, patience_s: float = 10.0) -> Streams:
        return Streams(
            relay=self.address,
            environment=ENVIRONMENT,
            host=HOST,
            sandbox_id=sandbox_id,
            key=key or self.key,
            patience_s=patience_s,
        )


async def eventually(what: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(timeout_s):
        while not what():
            await asyncio.sleep(0.005)


async def within(what: Awaitable[T], timeout_s: float = 5.0) -> T:
    """The answer, or TimeoutError: a host that keeps silent must not hang a test."""
    async with asyncio.timeout(timeout_s):
        return await what
