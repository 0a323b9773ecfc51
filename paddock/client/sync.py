"""The synchronous twin: the same names, for programs without an event loop. One thread of its own does the waiting."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from paddock.client import connect as asynchronous
from paddock.client import hosts, pool, run, sandbox
from paddock.client.directory import SandboxInfo
from paddock.client.hosts import HostInfo
from paddock.contracts.ground import HostReport
from paddock.contracts.hosts import TaskDone
from paddock.contracts.policies import PolicyApplied
from paddock.contracts.pool import PoolStatus
from paddock.contracts.report import OutputFile, SandboxReport, TaskResult
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Status
from paddock.contracts.streams import Chunk

T = TypeVar("T")


class _Loop:
    """An event loop in a thread of its own; what is interrupted here is cancelled there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paddock-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
        """An asynchronous generator as a plain one, closed with it."""
        source = self.call(_make(make))
        try:
            while True:
                try:
                    yield self.call(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            self.call(source.aclose())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _make(make: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    return make()


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


class Run:
    """One task of a sandbox."""

    def __init__(self, loop: _Loop, inner: run.Run) -> None:
        self._loop, self._inner = loop, inner
        self.number = inner.number

    def chunks(self, cursor: int = 0) -> Iterator[Chunk]:
        """Output bytes from `cursor` as they come, until the task ends."""
        return self._loop.iterate(lambda: self._inner.chunks(cursor))

    def output(self, chan: int | None = None) -> Iterator[str]:
        """Lines of output as they come, without their ends."""
        return self._loop.iterate(lambda: self._inner.output(chan))

    def wait(self) -> TaskDone:
        """How the task ended, also when the program never ran."""
        return self._loop.call(self._inner.wait())

    def result(self) -> TaskResult:
        """How the program ended; raises the typed error when it never ran or Paddock failed it."""
        return self._loop.call(self._inner.result())


class Sandbox:
    """One sandbox."""

    def __init__(self, loop: _Loop, inner: sandbox.Sandbox) -> None:
        self._loop, self._inner = loop, inner
        self.sandbox_id, self.workflow_id, self.host = inner.sandbox_id, inner.workflow_id, inner.host
        self.made, self.late = inner.made, inner.late

    @property
    def report(self) -> SandboxReport | None:
        """What happened and what is gone, once it has ended."""
        return self._inner.report

    def run(self, argv: Sequence[str] = (), *, inputs: Mapping[str, Path] | None = None, **fields: Any) -> Run:
        """Start one task and answer once it began; fields as in the asynchronous `Sandbox.run`."""
        return Run(self._loop, self._loop.call(self._inner.run(argv, inputs=inputs, **fields)))

    def task(self, number: int = 1) -> Run:
        """A task by its number, from 1."""
        return Run(self._loop, self._inner.task(number))

    def status(self) -> Status:
        """Where the sandbox is now."""
        return self._loop.call(self._inner.status())

    def extend(self, seconds: int) -> Status:
        """Move the lease's end to this many seconds from now."""
        return self._loop.call(self._inner.extend(seconds))

    def stop(self, reason: str = "stopped by its caller") -> SandboxReport:
        """End it and wait for its receipts."""
        return self._loop.call(self._inner.stop(reason))

    def result(self) -> SandboxReport:
        """The report, once everything is gone."""
        return self._loop.call(self._inner.result())

    def download(self, files: Sequence[OutputFile], into: Path) -> tuple[Path, ...]:
        """Fetch outputs below a directory, each checked against its digest."""
        return self._loop.call(self._inner.download(files, into))

    def close(self) -> None:
        """Let go of it without ending it."""
        self._loop.call(self._inner.close())


class Pool:
    """One environment's pool of hosts."""

    def __init__(self, loop: _Loop, inner: pool.Pool) -> None:
        self._loop, self._inner = loop, inner
        self.environment = inner.environment

    def status(self) -> PoolStatus:
        """Where it is, from the pool itself."""
        return self._loop.call(self._inner.status())

    def set(self, **changes: int) -> PoolStatus:
        """Change what is named of its PoolSize, leave the rest as it is."""
        return self._loop.call(self._inner.set(**changes))


class Host:
    """One host of an environment, by its name."""

    def __init__(self, loop: _Loop, inner: hosts.Host) -> None:
        self._loop, self._inner = loop, inner
        self.environment, self.host = inner.environment, inner.host

    def status(self) -> HostInfo:
        """Where it is, from its own workflow, and how many open sandboxes are on it."""
        return self._loop.call(self._inner.status())

    def made(self) -> bool:
        """Whether Paddock has its machine made, and ends it; False for one that joined."""
        return self._loop.call(self._inner.made())

    def drain(self, *, wait_s: int | None = None, reason: str | None = None) -> None:
        """No new sandboxes; once it is empty it goes, and what Paddock made is ended."""
        self._loop.call(self._inner.drain(wait_s=wait_s, reason=reason))

    def report(self) -> HostReport | None:
        """What was tried and what is proved gone, once it has ended; None while it has not."""
        return self._loop.call(self._inner.report())

    def result(self) -> HostReport:
        """The report, once it has ended."""
        return self._loop.call(self._inner.result())


class Paddock:
    """A client; `with Paddock.connect() as paddock` opens and closes it."""

    def __init__(self, inner: asynchronous.Paddock) -> None:
        self._inner = inner
        self._running: _Loop | None = None

    @classmethod
    def connect(cls, address: str | None = None, **where: Any) -> Self:
        """As the asynchronous `Paddock.connect`: nothing is dialled before the block is entered."""
        return cls(asynchronous.Paddock.connect(address, **where))

    @property
    def _loop(self) -> _Loop:
        if self._running is None:
            raise RuntimeError("Paddock is not connected: use `with Paddock.connect() as paddock`")
        return self._running

    def __enter__(self) -> Self:
        self._running = _Loop()
        try:
            self._loop.call(self._inner.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call(self._inner.__aexit__(None, None, None))
        self._loop.close()
        self._running = None

    @contextmanager
    def sandbox(
        self, spec: SandboxSpec | None = None, *, name: str | None = None, get_or_create: bool = False, **fields: Any
    ) -> Iterator[Sandbox]:
        """A sandbox for the length of a block; leaving it ends the sandbox, or with `get_or_create` lets go of it."""
        block: AbstractAsyncContextManager[sandbox.Sandbox] = self._inner.sandbox(
            spec, name=name, get_or_create=get_or_create, **fields
        )
        inner = self._loop.call(block.__aenter__())
        box = Sandbox(self._loop, inner)
        try:
            yield box
        except BaseException as wrong:
            self._loop.call(_leave(block, wrong))
            raise
        else:
            self._loop.call(_leave(block, None))

    def start(self, spec: SandboxSpec | None = None, *, name: str | None = None, **fields: Any) -> Sandbox:
        """A sandbox that goes on by itself: answers once it is placed; may be repeated, as the asynchronous one."""
        return Sandbox(self._loop, self._loop.call(self._inner.start(spec, name=name, **fields)))

    def get_or_create(self, name: str, spec: SandboxSpec | None = None, **fields: Any) -> Sandbox:
        """The sandbox of this name that runs, or a new one."""
        return self.start(spec, name=name, **fields)

    def attach(self, name: str) -> Sandbox:
        """A running sandbox by its name or workflow id."""
        return Sandbox(self._loop, self._loop.call(self._inner.attach(name)))

    def reopen(self, name: str) -> Sandbox:
        """A sandbox that ended within the last hour, for the output that its host still keeps."""
        return Sandbox(self._loop, self._loop.call(self._inner.reopen(name)))

    def list(self, all_: bool = False, limit: int = 1000) -> Iterator[SandboxInfo]:
        """Sandboxes, newest first."""
        return self._loop.iterate(lambda: self._inner.list(all_, limit))

    def status(self, name: str) -> Status:
        """Where a sandbox is, without attaching to it."""
        return self._loop.call(self._inner.status(name))

    def report(self, name: str) -> SandboxReport | None:
        """The report of a sandbox that ended; None while it has not."""
        return self._loop.call(self._inner.report(name))

    def stop(self, name: str, reason: str = "stopped by its caller") -> SandboxReport:
        """End a sandbox by its name and wait for its receipts."""
        return self._loop.call(self._inner.stop(name, reason))

    def apply_policy(self, text: str, file: str = "", author: str = "") -> PolicyApplied:
        """Check a policy document and keep it."""
        return self._loop.call(self._inner.apply_policy(text, file, author))

    def pools(self) -> Iterator[Pool]:
        """Every open pool of hosts."""
        return (Pool(self._loop, found) for found in self._loop.iterate(self._inner.pools))

    def pool(self, environment: str) -> Pool:
        """The pool of hosts of an environment."""
        return Pool(self._loop, self._inner.pool(environment))

    def hosts(self, environment: str | None = None, all_: bool = False, limit: int = 1000) -> Iterator[HostInfo]:
        """Hosts, newest first: the open ones, or with `all_` those that ended too."""
        return self._loop.iterate(lambda: self._inner.hosts(environment, all_, limit))

    def host(self, environment: str, name: str) -> Host:
        """A host by its name."""
        return Host(self._loop, self._inner.host(environment, name))


async def _leave(block: AbstractAsyncContextManager[sandbox.Sandbox], wrong: BaseException | None) -> None:
    """Leave the asynchronous block as the synchronous one is left; its own error comes back through there."""
    try:
        await block.__aexit__(type(wrong) if wrong else None, wrong, wrong.__traceback__ if wrong else None)
    except BaseException as again:
        if again is not wrong:
            raise
