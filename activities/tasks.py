"""Tasks on this host: inputs in, the program run to its end, outputs out by digest; never through history."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio import activity

from activities import unpack
from activities.running import beating
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Collect, Collected, RunTask, TaskDone
from paddock.contracts.report import OutputFile
from paddock.contracts.spec import InputRef
from paddock.host.link import SupervisorLink
from paddock.host.messages import Ask
from paddock.host.objects import ObjectStore

INPUT_WAIT_S = 60.0
KILL_S = 5.0
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class TaskActivities:
    """Verbs on the supervisors' tasks and the host's objects."""

    supervisors: SupervisorLink
    objects: ObjectStore

    @activity.defn
    async def run_task(self, run: RunTask) -> TaskDone:
        """Run a task and answer how it ended; tried again, it finds the one that runs or ran and waits for that."""
        sandbox_id = run.ref.sandbox_id
        async with beating(run.task):
            try:
                if activity.info().attempt == 1 or not await self._known(sandbox_id, run.task):
                    for reference in run.inputs:
                        await self.supervisors.put(sandbox_id, reference.path, self._read(sandbox_id, reference))
                stdin = None
                if run.spec.stdin:
                    stdin = b"".join([part async for part in self._read(sandbox_id, run.spec.stdin)])
                await self.supervisors.run(sandbox_id, run.task, run.spec, stdin)
                return await self.supervisors.wait(sandbox_id, run.task)
            except asyncio.CancelledError:
                if activity.is_worker_shutdown():
                    raise  # the task goes on; the next worker finds it
                try:
                    await self.supervisors.ask(sandbox_id, Ask(op="kill", task=run.task), KILL_S)
                    async with asyncio.timeout(KILL_S):
                        return await self.supervisors.wait(sandbox_id, run.task)
                except (PaddockError, TimeoutError):
                    raise asyncio.CancelledError from None  # it hangs: the undo ends it, without asking

    @activity.defn
    async def collect_outputs(self, collect: Collect) -> Collected:
        """Bring out what the globs match; each file is kept by its digest for the caller to fetch."""
        files: list[OutputFile] = []
        async with beating():
            for output in collect.outputs:
                sandbox_id = collect.ref.sandbox_id
                archive = self.supervisors.get(sandbox_id, output)
                files += await unpack.to_objects(archive, self.objects, sandbox_id, output.max_bytes)
        return Collected(outputs=tuple(files))

    async def _known(self, sandbox_id: str, task: int) -> bool:
        try:
            await asyncio.wait_for(self.supervisors.wait(sandbox_id, task), 0.05)
        except TimeoutError:
            return True
        except PaddockError as wrong:
            if wrong.kind is ErrorKind.SANDBOX_LOST:
                raise
            return False
        return True

    async def _read(self, sandbox_id: str, reference: InputRef) -> AsyncIterator[bytes]:
        path = await self.objects.wait(sandbox_id, reference.digest, INPUT_WAIT_S)
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
