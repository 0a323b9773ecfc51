"""Tasks of a sandbox: one at a time, each started once, ended once, and told why."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.spec import TaskSpec
from paddock.microvm.channel.messages import ExecRequest, ExitStatus, How
from paddock.supervisor import tasks as module
from paddock.supervisor.tasks import Tasks


class Handle:
    """A program in a guest that does what the test says."""

    def __init__(self, request: ExecRequest, on_output: Callable[[int, memoryview], None]) -> None:
        self.request, self._on_output = request, on_output
        self.signals: list[int] = []
        self.stdin: list[bytes | None] = []
        self.forgotten = False
        self.over: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()

    def says(self, data: bytes, chan: int = 1) -> None:
        self._on_output(chan, memoryview(data))

    def ends(self, value: int = 0, how: How = How.EXITED, message: str = "") -> None:
        self.over.set_result(ExitStatus(how, value, message))

    async def exit(self) -> ExitStatus:
        return await asyncio.shield(self.over)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if not self.over.done():
            self.ends(number, How.SIGNALLED)

    async def write_stdin(self, data: bytes) -> None:
        self.stdin.append(data)

    def stdin_eof(self) -> None:
        self.stdin.append(None)

    def forget(self) -> None:
        self.forgotten = True


class Guest:
    """Stands in for the channel: keeps the handles it gave out."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []

    def exec(self, request: ExecRequest, on_output: Callable[[int, memoryview], None]) -> Handle:
        self.handles.append(Handle(request, on_output))
        return self.handles[-1]


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def violations() -> list[str]:
    return []


@pytest.fixture
def tasks(guest: Guest, tmp_path: Path, violations: list[str]) -> Tasks:
    return Tasks(cast(Any, guest), tmp_path, violations.append)


async def started(tasks: Tasks, guest: Guest, number: int = 1, stdin: bytes | None = None, **spec: Any) -> Handle:
    tasks.start(number, TaskSpec.model_validate({"argv": ["program", "x"], **spec}), stdin)
    before = len(guest.handles)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(guest.handles) == before + 1 or guest.handles
    return guest.handles[-1]


async def done(tasks: Tasks, number: int = 1) -> TaskDone:
    task = tasks.get(number)
    assert task
    return await asyncio.wait_for(asyncio.shield(task.done), 5)


async def test_a_program_runs_without_privilege_with_what_its_spec_says(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest, env={"A": "b"}, cwd="/tmp")
    request = handle.request
    assert (request.argv, request.env, request.cwd) == (("program", "x"), (("A", "b"),), "/tmp")
    assert request.uid == request.gid == 1000
    assert not request.stdin
    handle.ends()
    assert (await done(tasks)).result.exit == 0
    assert handle.forgotten


async def test_standard_input_is_written_and_closed(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest, stdin=b"words")
    assert handle.request.stdin
    assert handle.stdin == [b"words", None]
    handle.ends()
    await done(tasks)


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        (How.EXITED, 3, {"exit": 3, "signal": None, "reason": ""}),
        (How.SIGNALLED, 15, {"exit": None, "signal": 15, "reason": "killed"}),
        (How.NEVER_STARTED, 127, {"exit": 127, "reason": "not-found"}),
        (How.NEVER_STARTED, 126, {"exit": 126, "reason": "not-executable"}),
        (How.FAILED, 0, {"exit": None, "signal": None, "reason": "failed"}),
    ],
)
async def test_each_end_is_told_as_it_was(
    how: How, value: int, expected: dict[str, object], tasks: Tasks, guest: Guest
) -> None:
    handle = await started(tasks, guest)
    handle.ends(value, how, "the guest's words")
    ended = await done(tasks)
    result = ended.result.model_dump()
    assert {name: result[name] for name in expected} == expected
    assert (ended.error is not None) == (how in (How.NEVER_STARTED, How.FAILED))


async def test_the_end_is_on_disk_before_it_is_told(tasks: Tasks, guest: Guest, tmp_path: Path) -> None:
    handle = await started(tasks, guest)
    handle.says(b"out")
    seen: list[bool] = []
    task = tasks.get(1)
    assert task
    task.done.add_done_callback(lambda _: seen.append((tmp_path / "1.done").exists()))
    handle.ends()
    ended = await done(tasks)
    await asyncio.sleep(0)
    assert seen == [True]
    assert TaskDone.model_validate_json((tmp_path / "1.done").read_bytes()) == ended


async def test_a_task_asked_for_twice_runs_once_and_another_only_after_it(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest)
    assert tasks.start(1, TaskSpec(argv=("program", "x")), None) is tasks.get(1)
    with pytest.raises(PaddockError, match="one task at a time"):
        tasks.start(2, TaskSpec(argv=("other",)), None)
    assert tasks.get(2) is None
    handle.ends()
    await done(tasks)
    tasks.start(1, TaskSpec(argv=("program", "x")), None)
    second = await started(tasks, guest, 2)
    assert len(guest.handles) == 2
    second.ends()
    await done(tasks, 2)


async def test_a_task_that_takes_too_long_is_killed_and_says_so(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest, timeout_s=1)
    ended = await done(tasks)
    assert handle.signals == [9]
    assert ended.result.reason == "timeout"
    assert ended.error is None


async def test_output_over_the_limit_ends_the_task_with_what_to_do(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest, output_limit_bytes=5)
    handle.says(b"123456789")
    handle.says(b"more")
    ended = await done(tasks)
    assert handle.signals[0] == 9
    assert ended.result.output_bytes == 5
    assert ended.error
    assert ended.error.kind is ErrorKind.OUTPUT_LIMIT
    assert ended.error.field == "task.output_limit_bytes"
    assert ended.error.remedy


async def test_a_full_disk_ends_the_task_with_what_to_do(
    tasks: Tasks, guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handle = await started(tasks, guest)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "writev", full)
    monkeypatch.setattr(module.rundir, "write", full)
    handle.says(b"lost")
    ended = await done(tasks)
    assert ended.error
    assert ended.error.kind is ErrorKind.DISK_FULL
    assert ended.error.remedy
    assert not (tmp_path / "1.done").exists()


async def test_a_disk_too_full_to_begin_is_said_and_the_task_may_be_tried_again(
    tasks: Tasks, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", full)
        with pytest.raises(PaddockError) as caught:
            tasks.start(1, TaskSpec(argv=("program",)), None)
    assert caught.value.kind is ErrorKind.DISK_FULL
    assert tasks.get(1) is None
    (await started(tasks, guest)).ends()
    assert (await done(tasks)).result.exit == 0


async def test_a_guest_that_does_not_end_a_killed_program_breaks_the_rules(
    tasks: Tasks, guest: Guest, violations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILLED_S", 0.01)
    handle = await started(tasks, guest)
    monkeypatch.setattr(handle, "signal", lambda number: None)
    task = tasks.get(1)
    assert task
    task.kill("stopped")
    async with asyncio.timeout(5):
        while not violations:
            await asyncio.sleep(0.001)
    tasks.lost(violations[0])
    await done(tasks)


async def test_a_killed_program_that_ends_in_time_breaks_none(
    tasks: Tasks, guest: Guest, violations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILLED_S", 0.01)
    await started(tasks, guest)
    task = tasks.get(1)
    assert task
    task.kill("stopped")
    await done(tasks)
    await asyncio.sleep(0.03)
    assert violations == []


async def test_the_first_reason_is_the_one_that_is_told(tasks: Tasks, guest: Guest) -> None:
    await started(tasks, guest)
    task = tasks.get(1)
    assert task
    task.kill("stopped")
    task.kill("timeout")
    assert (await done(tasks)).result.reason == "stopped"
    task.kill("later")  # harmless


async def test_a_lost_channel_ends_the_task_once_and_what_still_comes_is_dropped(
    tasks: Tasks, guest: Guest, tmp_path: Path
) -> None:
    handle = await started(tasks, guest)
    handle.says(b"kept")
    tasks.lost("the VMM died")
    ended = await done(tasks)
    assert ended.error
    assert ended.error.kind is ErrorKind.SANDBOX_LOST
    size = (tmp_path / "1.out").stat().st_size
    handle.says(b"too late")
    handle.ends()
    for _ in range(10):
        await asyncio.sleep(0)
    assert await done(tasks) == ended
    assert (tmp_path / "1.out").stat().st_size == size


async def test_a_channel_that_fails_ends_its_task(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest)
    handle.over.set_exception(PaddockError(ErrorKind.GUEST_VIOLATION, "the guest broke a rule"))
    ended = await done(tasks)
    assert ended.error
    assert "broke a rule" in ended.error.message


async def test_watchers_are_woken_by_output_and_by_the_end(tasks: Tasks, guest: Guest) -> None:
    handle = await started(tasks, guest)
    for act in (lambda: handle.says(b"x"), handle.ends):
        watcher = asyncio.ensure_future(tasks.grown())
        await asyncio.sleep(0)
        assert not watcher.done()
        act()
        await asyncio.wait_for(watcher, 5)
