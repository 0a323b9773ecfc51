"""`Paddock`: the way in. One connection to Temporal, from which sandboxes are started, found and ended."""

import asyncio
import getpass
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy

from paddock.client.directory import QUICKLY, Directory, SandboxInfo
from paddock.client.discover import running
from paddock.client.errors import ClientError, from_report
from paddock.client.failures import FAILURES, bad_spec, persist, typed
from paddock.client.keys import CallerKey
from paddock.client.pack import Packed, packed
from paddock.client.policy import apply_policy
from paddock.client.sandbox import Sandbox
from paddock.client.stream import Progress, Streams
from paddock.contracts import names
from paddock.contracts.policies import PolicyApplied
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Attachment, Status
from paddock.temporal.connect import configured, connect

_LAST_WORDS_S: Final = 30.0


def _silent(done: int, of: int) -> None:
    """Nobody watches this upload."""


class Paddock:
    """A client; `async with Paddock.connect() as paddock` opens and closes it."""

    def __init__(self, address: str | None, profile: str | None, namespace: str | None, state: Path | None) -> None:
        self._address, self._profile, self._namespace, self._state = address, profile, namespace, state
        self._client: Client | None = None

    @classmethod
    def connect(
        cls,
        address: str | None = None,
        *,
        profile: str | None = None,
        namespace: str | None = None,
        state: Path | None = None,
    ) -> Self:
        """A client of the Temporal at `address`; else of TEMPORAL_* or the profile; else of this `paddock up`.

        `state` names the state directory of a `paddock up`, which then comes before the environment.
        Nothing is dialled before the block is entered.
        """
        return cls(address, profile, namespace, state)

    async def __aenter__(self) -> Self:
        address = self._address
        if address is None and (self._state is not None or not configured(self._profile)):
            up = running(self._state)
            address = up.temporal if up else None
        self._client = await connect(address, self._profile, self._namespace)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: object) -> None:
        self._client = None

    @property
    def client(self) -> Client:
        """Temporal's own client, for what Paddock has no word for."""
        if self._client is None:
            raise RuntimeError("Paddock is not connected: use `async with Paddock.connect() as paddock`")
        return self._client

    @asynccontextmanager
    async def sandbox(
        self, spec: SandboxSpec | None = None, *, name: str | None = None, **fields: Any
    ) -> AsyncIterator[Sandbox]:
        """A sandbox for the length of a block; leaving it ends the sandbox, and `report` has the receipts then.

        Fields are SandboxSpec's, and `inputs` may also map paths below /work to local paths. An error in the block goes
        on, after the sandbox is ended.
        """
        box = await self.start(spec, name=name, **fields)
        try:
            yield box
        except BaseException:
            await self._abandon(box)
            raise
        else:
            await box.stop("its caller is done")
        finally:
            await box.close()

    async def start(
        self,
        spec: SandboxSpec | None = None,
        *,
        name: str | None = None,
        inputs: Mapping[str, Path] | None = None,
        progress: Progress = _silent,
        **fields: Any,
    ) -> Sandbox:
        """A sandbox that goes on by itself: answers once it is placed and its inputs are with its host.

        Raises BadSpec, Refused or the typed error of whatever kept it from being placed.
        """
        key = CallerKey()
        with packed(inputs) if inputs else nullcontext() as tar:
            whole = _spec(spec, fields, key, tar)
            workflow_id = names.sandbox_workflow_id(name or uuid.uuid4().hex[:12])
            box = await self._place(whole, workflow_id, key)
            if tar is not None:
                try:
                    await box.upload(tar, progress)
                except BaseException:
                    await self._abandon(box)
                    raise
        return box

    @staticmethod
    async def _abandon(box: Sandbox) -> None:
        try:
            await box.stop("its caller failed")
        except ClientError:
            pass  # the caller's own error is the one to see

    async def _place(self, spec: SandboxSpec, workflow_id: str, key: CallerKey) -> Sandbox:
        start: WithStartWorkflowOperation[Any, SandboxReport] = WithStartWorkflowOperation(
            names.SANDBOX,
            spec,
            id=workflow_id,
            task_queue=names.CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            result_type=SandboxReport,
            static_summary=_summary(spec),
        )
        try:
            placed: Attachment = await self.client.execute_update_with_start_workflow(
                "attach", key.public, start_workflow_operation=start, id=str(uuid.uuid4()), result_type=Attachment
            )
        except FAILURES as wrong:
            raise await _why(start, wrong, workflow_id) from wrong
        return self._box(await start.workflow_handle(), placed, spec.environment, key)

    async def attach(self, name: str) -> Sandbox:
        """A running sandbox by its name or workflow id, with a fresh key of this caller's for its streams."""
        handle, key = await self._directory().handle(name), CallerKey()
        try:
            status: Status = await handle.query("status", result_type=Status, rpc_timeout=QUICKLY)
            placed: Attachment = await persist(
                lambda: handle.execute_update("attach", key.public, result_type=Attachment)
            )
        except FAILURES as wrong:
            raise typed(wrong, name) from wrong
        return self._box(handle, placed, status.environment, key)

    def list(self, all_: bool = False, limit: int = 1000) -> "AsyncGenerator[SandboxInfo, None]":
        """Sandboxes, newest first: the running ones, or with `all_` those that ended too."""
        return self._directory().list(all_, limit)

    async def status(self, name: str) -> Status:
        """Where a sandbox is, without attaching to it."""
        return await self._directory().status(name)

    async def report(self, name: str) -> SandboxReport | None:
        """The report of a sandbox that ended, however it did; None while it has not."""
        return await self._directory().report(name)

    async def stop(self, name: str, reason: str = "stopped by its caller") -> SandboxReport:
        """End a sandbox by its name or workflow id and wait for its receipts; the report also when it failed itself."""
        return await self._directory().stop(name, reason)

    async def apply_policy(self, text: str, file: str = "", author: str = "") -> PolicyApplied:
        """Check a policy document and keep it; raises BadSpec with line and column of each mistake."""
        return await apply_policy(self.client, text, file, author)

    def _directory(self) -> Directory:
        return Directory(self.client)

    @staticmethod
    def _box(
        handle: WorkflowHandle[Any, SandboxReport], placed: Attachment, environment: str, key: CallerKey
    ) -> Sandbox:
        streams = Streams(
            relay=placed.relay, environment=environment, host=placed.host, sandbox_id=placed.sandbox_id, key=key
        )
        return Sandbox(handle, streams, placed.sandbox_id, placed.host)


async def _why(start: WithStartWorkflowOperation[Any, SandboxReport], wrong: Exception, name: str) -> ClientError:
    """Why nothing was placed, in the workflow's own words where it had the time to say them."""
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            handle = await start.workflow_handle()
            report = await handle.result()
    except TimeoutError:
        return typed(wrong, name)
    except FAILURES as said:
        return typed(said, name)
    return from_report(report)


def _spec(spec: SandboxSpec | None, fields: dict[str, Any], key: CallerKey, tar: Packed | None) -> SandboxSpec:
    """The whole spec: fields over the given one, the caller and its key, and where a packed input belongs."""
    try:
        whole = SandboxSpec.model_validate({**(dict(spec) if spec else {}), **fields})
        made: dict[str, Any] = {"caller_key": key.public, "owner": whole.owner or _owner()}
        if tar is not None and whole.task is not None:
            made["task"] = whole.task.model_copy(update={"inputs": (*whole.task.inputs, tar.ref)})
        elif tar is not None:
            made["inputs"] = (*whole.inputs, tar.ref)
        return whole.model_copy(update=made)
    except ValidationError as wrong:
        raise bad_spec(wrong) from wrong


def _owner() -> str:
    try:
        return getpass.getuser()[:128]
    except (OSError, KeyError, ImportError):
        return ""  # a user without a name, as in many containers


def _summary(spec: SandboxSpec) -> str:
    what = spec.task.argv[0] if spec.task else "session"
    return f"{spec.environment} · {spec.image} · {what} · {spec.shape.vcpu} vCPU"[:190]
