"""One sandbox as its caller sees it."""

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError
from temporalio.client import WorkflowHandle

from paddock.client.errors import ClientError, from_report
from paddock.client.failures import FAILURES, bad_spec, persist, report_in, typed
from paddock.client.pack import Packed, packed
from paddock.client.run import Run
from paddock.client.stream import QUIET_S, Streams
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.report import FAILS_THE_WORKFLOW, OutputFile, SandboxReport, TaskResult
from paddock.contracts.spec import TaskSpec
from paddock.contracts.status import Status

if TYPE_CHECKING:
    from paddock.client.stream import Progress

T = TypeVar("T")
_LAST_RECEIPTS_S: Final = 60.0
_SILENT: Final = lambda done, of: None  # noqa: E731


class Sandbox:
    """A placed sandbox; made by `Paddock.sandbox`, `start` or `attach`."""

    def __init__(
        self,
        handle: WorkflowHandle[Any, SandboxReport],
        streams: Streams,
        sandbox_id: str,
        host: str,
        made: bool = False,
        late: bool = False,
    ) -> None:
        """`made`: the call that answers this sandbox also started it; `late`: it had ended before."""
        self._handle = handle
        self.streams = streams
        self.sandbox_id = sandbox_id
        self.workflow_id = handle.id
        self.host = host
        self.made, self.late = made, late
        self.report: SandboxReport | None = None
        self._end: asyncio.Task[SandboxReport] | None = None
        self._over = 0

    def end(self) -> "asyncio.Task[SandboxReport]":
        """Done once the workflow has ended: its report, or its typed error."""
        if self._end is None:
            self._end = asyncio.create_task(self._wait())
            self._end.add_done_callback(lambda task: task.cancelled() or task.exception())  # fetched later or never
        return self._end

    async def ends(self, said: ErrorKind) -> bool:
        """Whether it has ended, or does so soon now that a stream said it is lost: receipts take their time."""
        await asyncio.wait({self.end()}, timeout=0 if said is ErrorKind.UNREACHABLE else _LAST_RECEIPTS_S)
        return self.end().done()

    async def _wait(self) -> SandboxReport:
        try:
            self.report = await persist(self._handle.result)
        except FAILURES as wrong:
            self.report = report_in(wrong)
            raise typed(wrong, self.workflow_id) from wrong
        if self.report.outcome in FAILS_THE_WORKFLOW:
            raise from_report(self.report)
        return self.report

    async def result(self) -> SandboxReport:
        """The report, once everything is gone; raises the typed error (with `report`) when the sandbox failed."""
        return await asyncio.shield(self.end())

    async def delayed_by(self) -> str:
        """What is being tried again and why it failed last, in one line; empty when nothing is."""
        described = await self._handle.describe()
        return "; ".join(
            f"{pending.activity_type.name}, attempt {pending.attempt}: {pending.last_failure.message}"
            for pending in described.raw_description.pending_activities
            if pending.attempt > 1
        )

    async def status(self) -> Status:
        """Where the sandbox is now, never older than the end of a task that was seen here."""
        with contextlib.suppress(ClientError):  # one that ended has a status too
            await self.settle()
        try:
            status: Status = await persist(lambda: self._handle.query("status", result_type=Status), 10)
        except FAILURES as wrong:
            raise typed(wrong, self.workflow_id) from wrong
        return status

    def task(self, number: int = 1) -> Run:
        """A task by its number, from 1; the task of the spec is the first."""
        return Run(self, number)

    async def run(
        self,
        argv: Sequence[str] = (),
        *,
        inputs: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: int = 3600,
        progress: "Progress" = _SILENT,
        **fields: Any,
    ) -> Run:
        """Start one task and answer once it began; `inputs` (path below /work → local path) are uploaded before it.

        Further fields are TaskSpec's. Raises BadSpec for what no task may be, the typed error when the sandbox ended.
        """
        try:
            spec = TaskSpec(argv=tuple(argv), env=dict(env or {}), timeout_s=timeout_s, **fields)
        except ValidationError as wrong:
            raise bad_spec(wrong) from wrong
        if inputs:
            with packed(inputs) as tar:
                await self.upload(tar, progress)
                spec = spec.model_copy(update={"inputs": (*spec.inputs, tar.ref)})
        await self.settle()
        update = str(uuid.uuid4())
        number = await self._ask(lambda: self._handle.execute_update("run", spec, id=update, result_type=int))
        return Run(self, number)

    def over(self, number: int) -> None:
        """Note that a task's end was seen on its stream, which is a moment before the workflow knows."""
        self._over = max(self._over, number)

    async def settle(self) -> None:
        """Wait until the workflow knows of every end that was seen here, and so takes another task."""
        number, self._over = self._over, 0
        if number:
            await self._ask(lambda: self._handle.execute_update("wait", number, result_type=TaskResult))

    async def upload(self, tar: Packed, progress: "Progress" = _SILENT) -> None:
        """Send a packed input to the host; a sandbox that ends meanwhile ends this too."""
        await self._unless_ended(self.streams.put(tar.file, tar.ref.digest, tar.ref.bytes, progress))

    async def extend(self, seconds: int) -> Status:
        """Move the lease's end to this many seconds from now, in the workflow and in the supervisor."""
        update = str(uuid.uuid4())
        status: Status = await self._ask(
            lambda: self._handle.execute_update("extend", seconds, id=update, result_type=Status)
        )
        return status

    async def stop(self, reason: str = "stopped by its caller") -> SandboxReport:
        """End the sandbox and wait for its receipts; of one that ended already, its report."""
        update = str(uuid.uuid4())
        try:
            await persist(lambda: self._handle.execute_update("stop", reason, id=update, result_type=SandboxReport))
        except FAILURES as wrong:
            # it may have ended by itself meanwhile: then its own end is the answer
            ended, _ = await asyncio.wait({self.end()}, timeout=QUIET_S)
            if not ended:
                raise typed(wrong, self.workflow_id) from wrong
        return await self.result()

    async def download(
        self, files: Sequence[OutputFile], into: Path, progress: "Progress" = _SILENT
    ) -> tuple[Path, ...]:
        """Fetch outputs that the report names below the directory `into`, each checked against its digest."""
        written = []
        for file in files:
            target = _below(into, file.path)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".paddock-", delete=False) as part:
                try:
                    await self.streams.get(file.digest, part.file, progress)
                    part.close()
                    Path(part.name).chmod(0o666 & ~_umask())
                    Path(part.name).replace(target)
                except BaseException:
                    Path(part.name).unlink(missing_ok=True)
                    raise
            written.append(target)
        return tuple(written)

    async def close(self) -> None:
        """Let go of it without ending it; its lease goes on."""
        if self._end is not None:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)

    async def _ask(self, call: Any) -> Any:
        try:
            return await persist(call)
        except FAILURES as wrong:
            ended, _ = await asyncio.wait({self.end()}, timeout=0.2)
            if ended:
                report = self.report
                raise (from_report(report) if report else typed(wrong, self.workflow_id)) from wrong
            raise typed(wrong, self.workflow_id) from wrong

    async def _unless_ended(self, what: Awaitable[T]) -> T:
        work, end = asyncio.ensure_future(what), self.end()
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait({work}, timeout=QUIET_S)
            if work.done():
                return work.result()
            raise from_report(await self.result())
        finally:
            work.cancel()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _below(into: Path, name: str) -> Path:
    """Where an output goes; a host that names a place elsewhere, also through a link that lies there, is refused."""
    parts = Path(name).parts
    refused = ClientError(
        ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message="an output names a place outside of its directory", field=name)
    )
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise refused
    root = into.resolve()
    target = root.joinpath(*parts)
    try:
        if not target.parent.resolve().is_relative_to(root):
            raise refused
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(root) or target.is_dir():
            raise refused
    except OSError as wrong:
        raise ClientError(
            ErrorInfo(kind=ErrorKind.INTERNAL, message=f"an output cannot be written: {wrong.strerror}", field=name)
        ) from wrong
    return target
