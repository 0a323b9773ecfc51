"""Tasks of one sandbox: their output goes to a file with a cursor, as records `chan u8 · length u32 · bytes`."""

import asyncio
import errno
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.report import TaskResult
from paddock.contracts.spec import TaskSpec
from paddock.microvm.channel.handle import ExecHandle
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ExecRequest, ExitStatus, How
from paddock.supervisor import rundir

RECORD: Final = struct.Struct(">BI")
SIGKILL: Final = 9
KILLED_S: Final = 10.0
UID: Final = 1000


_NOT_KEPT: Final = {
    ErrorKind.DISK_FULL: ErrorInfo(
        kind=ErrorKind.DISK_FULL,
        message="the host's disk is full: the task's output could not be kept, so the task was ended",
        remedy="free space under the host's state directory",
    ),
    ErrorKind.INTERNAL: ErrorInfo(
        kind=ErrorKind.INTERNAL,
        message="the host could not keep the task's output, so the task was ended",
        remedy="check the disk of the host's state directory",
    ),
}


def _kind(wrong: OSError) -> ErrorKind:
    full = wrong.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ErrorKind.DISK_FULL if full else ErrorKind.INTERNAL


class Output:
    """The output file of one task: appended to, counted, hashed; `full` once the limit or the disk is reached."""

    def __init__(self, file: Path, limit_bytes: int) -> None:
        try:
            self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as wrong:
            info = _NOT_KEPT[_kind(wrong)]
            raise PaddockError(info.kind, f"{info.message} ({wrong.strerror})", remedy=info.remedy) from wrong
        self._limit = limit_bytes
        self._hash = hashlib.sha256()
        self._size = 0
        self._digest = ""
        self.bytes = 0
        self.full = ""

    def write(self, chan: int, data: memoryview) -> None:
        """Append, up to the limit; whole records only, and none after `close`."""
        if self.full or self._digest:
            return
        room = self._limit - self.bytes
        if len(data) > room:
            data = data[:room]
            self.full = ErrorKind.OUTPUT_LIMIT.value
        if data:
            try:
                if os.writev(self._fd, [RECORD.pack(chan, len(data)), data]) < RECORD.size + len(data):
                    os.ftruncate(self._fd, self._size)  # a disk that is nearly full takes a part
                    raise OSError(errno.ENOSPC, "a part of a record was written")
            except OSError as wrong:
                self.full = _kind(wrong).value
                return
            self._size += RECORD.size + len(data)
            self._hash.update(data)
            self.bytes += len(data)

    def close(self) -> str:
        """Answers the digest of all that was written; again the same."""
        if not self._digest:
            os.close(self._fd)
            self._digest = "sha256:" + self._hash.hexdigest()
        return self._digest


class Task:
    """One run of one program, from exec to exit; watchers are woken whenever its output grew."""

    def __init__(
        self,
        number: int,
        spec: TaskSpec,
        directory: Path,
        grew: Callable[[], None],
        violated: Callable[[str], None],
    ) -> None:
        self.number, self.spec = number, spec
        self._directory, self._grew, self._violated = directory, grew, violated
        self._unkillable: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[TaskDone] = asyncio.get_running_loop().create_future()
        self._output = Output(directory / f"{number}.out", spec.output_limit_bytes)
        self._handle: ExecHandle | None = None
        self._reason = ""
        self._grew()

    async def run(self, link: Link, stdin: bytes | None) -> None:
        """Start the program and see it to its end; the answer is in `done`, on disk first."""
        request = ExecRequest(
            argv=self.spec.argv,
            env=tuple(self.spec.env.items()),
            cwd=self.spec.cwd,
            uid=UID,
            gid=UID,
            stdin=stdin is not None,
        )
        self._handle = handle = link.exec(request, self._on_output)
        timer = asyncio.get_running_loop().call_later(self.spec.timeout_s, self.kill, "timeout")
        try:
            if stdin is not None:
                await handle.write_stdin(stdin)
                handle.stdin_eof()
            status = await handle.exit()
        finally:
            timer.cancel()
            if self._unkillable:
                self._unkillable.cancel()
        handle.forget()
        self._finish(self._judge(status))

    def kill(self, reason: str, signal: int = SIGKILL) -> None:
        """End the program's whole cgroup; the first reason is the one that is told."""
        self._reason = self._reason or reason
        if self._handle and not self.done.done():
            self._handle.signal(signal)
            if signal == SIGKILL and self._unkillable is None:
                self._unkillable = asyncio.get_running_loop().call_later(KILLED_S, self._deaf)

    def _deaf(self) -> None:
        if not self.done.done():
            self._violated("the guest did not end a killed program")

    def lost(self, why: str) -> None:
        """The channel is gone: the task ends without an exit code."""
        if not self.done.done():
            info = ErrorInfo(kind=ErrorKind.SANDBOX_LOST, message=why)
            self.done.set_result(TaskDone(result=self._result(reason="sandbox-lost"), error=info))

    def _on_output(self, chan: int, data: memoryview) -> None:
        self._output.write(chan, data)
        if self._output.full:
            self.kill(self._output.full)
        self._grew()

    def _judge(self, status: ExitStatus) -> TaskDone:
        if status.how is How.NEVER_STARTED:
            kind = ErrorKind.NOT_EXECUTABLE if status.value == 126 else ErrorKind.NOT_FOUND
            info = ErrorInfo(kind=kind, message=f"{self.spec.argv[0]}: {status.message}", field="task.argv")
            return TaskDone(result=self._result(exit_code=status.value, reason=kind.value), error=info)
        if status.how is How.FAILED:
            info = ErrorInfo(kind=ErrorKind.INTERNAL, message=status.message)
            return TaskDone(result=self._result(reason="failed"), error=info)
        error = self._error()
        if status.how is How.SIGNALLED:
            return TaskDone(result=self._result(signal=status.value, reason=self._reason or "killed"), error=error)
        return TaskDone(result=self._result(exit_code=status.value, reason=self._reason), error=error)

    def _error(self) -> ErrorInfo | None:
        if self._reason == ErrorKind.OUTPUT_LIMIT.value:
            limit = self.spec.output_limit_bytes
            return ErrorInfo(
                kind=ErrorKind.OUTPUT_LIMIT,
                message=f"the task wrote more than {limit} bytes; it was ended and its output is cut there",
                field="task.output_limit_bytes",
                remedy="raise output_limit_bytes, or write less",
            )
        return next((info for kind, info in _NOT_KEPT.items() if kind.value == self._reason), None)

    def _result(self, *, exit_code: int | None = None, signal: int | None = None, reason: str = "") -> TaskResult:
        return TaskResult(
            exit=exit_code,
            signal=signal,
            reason=reason,
            output_digest=self._output.close(),
            output_bytes=self._output.bytes,
        )

    def _finish(self, done: TaskDone) -> None:
        if self.done.done():
            return  # it was lost meanwhile
        try:
            rundir.write(self._directory / f"{self.number}.done", done)
        except OSError:
            pass  # a full disk: the answer still reaches whoever waits
        self.done.set_result(done)
        self._grew()


class Tasks:
    """All tasks of a sandbox, by number; at most one runs."""

    def __init__(self, link: Link, directory: Path, violated: Callable[[str], None]) -> None:
        self._link, self._directory, self._violated = link, directory, violated
        self._tasks: dict[int, Task] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._grown = asyncio.Event()

    def start(self, number: int, spec: TaskSpec, stdin: bytes | None) -> Task:
        """Run task `number`; asked again, answers the one that runs or ran."""
        if known := self._tasks.get(number):
            return known
        if any(not task.done.done() for task in self._tasks.values()):
            raise PaddockError(ErrorKind.NOT_ALLOWED, "another task is running; one task at a time")
        task = self._tasks[number] = Task(number, spec, self._directory, self._wake, self._violated)
        run = asyncio.get_running_loop().create_task(task.run(self._link, stdin))
        self._runs.add(run)
        run.add_done_callback(self._over)
        return task

    def get(self, number: int) -> Task | None:
        return self._tasks.get(number)

    def lost(self, why: str) -> None:
        for task in self._tasks.values():
            task.lost(why)

    async def grown(self) -> None:
        """Wait until some output grew or a task ended."""
        await self._grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _over(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        if not run.cancelled() and (wrong := run.exception()):
            self.lost(str(wrong))
