"""What the sandboxes of a run do, through the doors that a user has: the SDK, or a workflow started by its name."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.connect import Paddock
from paddock.client.errors import ClientError, Unreachable
from paddock.client.run import STDOUT
from paddock.client.run import Run as Following
from paddock.client.sandbox import Sandbox
from tests.e2e.fence import API
from tests.faults.plan import Kind, Plan, Work

T = TypeVar("T")
PATIENCE_S = 60.0
FIRST_LINE_S = 1.6  # on a quiet machine
FIRST_LINE_WITHIN_S = 20.0
TASK_LINES, SHORT_LINES, FOREVER = 40, 10, 600
EVERY = 5
# A numbered line each 100 ms, and each fifth time a request with a credential that the guest does not hold. A request
# that the fence refuses for lack of a record or of a secret is tried again, as docs/limits.md tells a caller to.
PROGRAM = """
import ssl, sys, time, urllib.error, urllib.request
lines, every, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
trust = ssl.create_default_context()
def item(i):
    until = time.monotonic() + 40
    while True:
        try:
            with urllib.request.urlopen(f"{url}/{i}", timeout=20, context=trust) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            if refused.code != 503 or time.monotonic() > until:
                raise
            print(f"item {i} refused: {refused.read().decode()[:200]}", file=sys.stderr, flush=True)
            time.sleep(0.2)
begin = time.monotonic()
for i in range(lines):
    print(f"line {i:04d}", flush=True)
    if every and i % every == 0:
        print(f"item {i} {item(i)}", flush=True)
    time.sleep(max(0, begin + (i + 1) * 0.1 - time.monotonic()))
"""


def expected(lines: int, every: int = EVERY) -> bytes:
    """The output of `PROGRAM`."""
    rows = (f"line {i:04d}\n" + (f"item {i} 200\n" if every and i % every == 0 else "") for i in range(lines))
    return "".join(rows).encode()


@dataclass
class Ran:
    """One task as its caller saw it."""

    lines: int
    output: bytes = b""
    errors: bytes = b""
    exit: int | None = None
    wrong: str = ""

    @property
    def whole(self) -> bool:
        return self.exit == 0 and self.output == expected(self.lines)


@dataclass
class Played:
    """One sandbox as its caller saw it; `ended_at` is when its caller had the report."""

    work: Work
    workflow: str
    sandbox: str = ""
    tasks: list[Ran] = field(default_factory=list)
    retries: int = 0
    ended_at: float = 0.0
    wrong: str = ""

    def __str__(self) -> str:
        ran = "; ".join(
            f"task exit {t.exit}, {len(t.output)} of {len(expected(t.lines))} bytes {t.wrong}" for t in self.tasks
        )
        return f"{self.workflow} ({self.work.kind}) {self.sandbox}: {ran} {self.wrong}"


class Players:
    """Plays the works of one run; `calm` is set once every fault has struck and its victim is back."""

    def __init__(self, paddock: Paddock, plain: Client, number: int, calm: asyncio.Event) -> None:
        self._paddock, self._plain, self._number, self._calm = paddock, plain, number, calm
        self._spoke_at = 0.0
        self._spoke = asyncio.Event()

    def workflow(self, index: int) -> str:
        return f"sandbox/fault-{self._number}-{index}"

    async def moment(self, todo: Plan, at_s: float, begin: float) -> None:
        """Wait for a moment of the plan: early ones by the clock, later ones by the first line of output.

        So a slow machine is struck in the same places. A lease is by the clock alone, and so is a run without output.
        """
        await asyncio.sleep(max(0.0, begin + at_s - time.monotonic()))
        kinds = {work.kind for work in todo.works}
        if at_s > FIRST_LINE_S and Kind.LEASE not in kinds and kinds & {Kind.TASK, Kind.SESSION}:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._spoke.wait(), FIRST_LINE_WITHIN_S)
                await asyncio.sleep(max(0.0, self._spoke_at + at_s - FIRST_LINE_S - time.monotonic()))

    async def play(self, index: int, work: Work, begin: float) -> Played:
        """One sandbox from its start to its end; what goes wrong on the way is noted, never raised."""
        played = Played(work, self.workflow(index))
        await asyncio.sleep(max(0.0, begin + work.start_s - time.monotonic()))
        try:
            if work.kind in (Kind.STOPPED, Kind.CANCELLED):
                await self._by_name(played, index, begin)
            else:
                await self._by_sdk(played, index)
        except ClientError as wrong:
            played.wrong = f"{type(wrong).__name__}: {wrong}"
        played.ended_at = time.monotonic()
        return played

    async def _by_sdk(self, played: Played, index: int) -> None:
        box = await self._started(played, index)
        played.sandbox = box.sandbox_id
        try:
            if played.work.kind is Kind.SESSION:
                await self._session(played, box, index)
                await box.stop("the run is over")
            else:
                await self._follow(played, box.task(1), FOREVER if played.work.kind is Kind.LEASE else TASK_LINES)
            await box.result()
        finally:
            await box.close()

    async def _started(self, played: Played, index: int) -> Sandbox:
        kind, name = played.work.kind, played.workflow.removeprefix("sandbox/")
        fields: dict[str, Any] = {"policy": "fence-test", "lifetime_s": 30 if kind is Kind.LEASE else 300}
        if kind is Kind.TASK:
            fields["task"] = {"argv": self._argv(index, 1, TASK_LINES)}
        elif kind is Kind.LEASE:
            fields["task"] = {"argv": self._argv(index, 1, FOREVER)}
        try:
            return await self._paddock.start(name=name, **fields)
        except Unreachable:  # an answer that never came: it may run
            played.retries += 1
            return await self._again(played, lambda: self._paddock.attach(name))

    async def _session(self, played: Played, box: Sandbox, index: int) -> None:
        """Short tasks until no fault is left to come, two at least; the last one shows that it is rightly alive."""
        number, last = 0, False
        while not last:
            last = number > 0 and self._calm.is_set()
            number += 1
            run = await box.run(self._argv(index, number, SHORT_LINES))
            await self._follow(played, run, SHORT_LINES)
            if played.work.rest_s and not last:
                await asyncio.wait({box.end()}, timeout=played.work.rest_s)
                if box.end().done():
                    return  # lost while nothing was asked of it

    async def _follow(self, played: Played, run: Following, lines: int) -> None:
        ran, cursor, parts = Ran(lines), 0, {STDOUT: bytearray()}
        played.tasks.append(ran)
        deadline = time.monotonic() + PATIENCE_S + lines / 10
        try:
            while run.done is None:
                try:
                    async for chunk in run.chunks(cursor):
                        parts.setdefault(chunk.chan, bytearray()).extend(chunk.data)
                        cursor = chunk.cursor
                        if not self._spoke.is_set():
                            self._spoke_at = time.monotonic()
                            self._spoke.set()
                except Unreachable:
                    played.retries += 1
                    if time.monotonic() > deadline:
                        raise
            ran.exit = run.done.result.exit
            if run.done.error:
                ran.wrong = run.done.error.message
        except ClientError as wrong:
            ran.wrong = f"{type(wrong).__name__}: {wrong}"
            raise
        finally:
            ran.output = bytes(parts.pop(STDOUT))
            ran.errors = b"".join(map(bytes, parts.values()))

    async def _by_name(self, played: Played, index: int, begin: float) -> None:
        """Started and ended by plain Temporal calls, as another service may: no stream, no key."""
        spec = {"policy": "fence-test", "lifetime_s": 300, "task": {"argv": self._argv(index, 1, FOREVER)}}
        handle = await self._called(
            played, lambda: self._plain.start_workflow("Sandbox", spec, id=played.workflow, task_queue="control")
        )
        await asyncio.sleep(max(0.0, begin + played.work.end_s - time.monotonic()))
        try:
            if played.work.kind is Kind.CANCELLED:
                await self._called(played, handle.cancel)
            else:
                update = str(uuid.uuid4())
                await self._called(played, lambda: handle.execute_update("stop", "told to", id=update))
        except WorkflowUpdateFailedError as failed:
            played.wrong = f"stop: {failed.cause}"
        except RPCError as wrong:
            if wrong.status is not RPCStatusCode.NOT_FOUND:  # it ended by itself, which its report explains
                played.wrong = f"{played.work.kind}: {wrong}"
        try:
            await asyncio.wait_for(self._called(played, handle.result), PATIENCE_S)
        except TimeoutError:
            played.wrong = f"it did not end within {PATIENCE_S:.0f} s of being told to"
        except WorkflowFailureError:
            return  # judged by its report

    def _argv(self, index: int, task: int, lines: int) -> list[str]:
        url = f"https://{API}/{self._number}/{index}/{task}"
        return ["python3", "-c", PROGRAM, str(lines), str(EVERY), url]

    async def _called(self, played: Played, call: Callable[[], Awaitable[T]]) -> T:
        """A call to Temporal, made again while the server is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await call()
            except RPCError as wrong:
                played.retries += 1
                if wrong.status is RPCStatusCode.NOT_FOUND or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def _again(self, played: Played, call: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await call()
            except Unreachable:
                played.retries += 1
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
