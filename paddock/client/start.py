"""Starting a sandbox under a name, or finding the one that runs: one round trip, and safe to repeat."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.errors import AlreadyExists, ClientError, from_report
from paddock.client.failures import FAILURES, persist, typed
from paddock.contracts import names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Attachment, Status

LAST_WORDS_S: Final = 30.0
# A workflow task that a control worker had taken when it died goes to the next one after this long; servers say 10 s.
TASK_TIMEOUT: Final = timedelta(seconds=3)
_TOKEN: Final = "paddock-start"  # the memo that tells a start of ours from somebody else's of the same name


@dataclass(frozen=True, slots=True)
class Placed:
    """A sandbox that runs; `made` when this very call started it."""

    handle: WorkflowHandle[Any, SandboxReport]
    attachment: Attachment
    environment: str
    made: bool


class Start:
    """One start of one spec, however often its calls are repeated.

    `request_id` makes it the same start as that of an earlier process: the server knows an update by its id, also when
    its sandbox has ended since, and then starts nothing.
    """

    def __init__(
        self, client: Client, spec: SandboxSpec, workflow_id: str, key: str, request_id: str | None = None
    ) -> None:
        self._client, self._spec, self._id, self._key = client, spec, workflow_id, key
        self._token, self._update = uuid.uuid4().hex, request_id or str(uuid.uuid4())
        self._tried = False

    async def place(self, *, named: bool, ignore: frozenset[str]) -> Placed:
        """Start it, or find the one of this id that runs, and wait until it is placed.

        Unless it is `named`, nobody else can have started it. Raises AlreadyExists when the one that runs was started
        with another spec, but for the fields in `ignore`; and the typed error of whatever kept it from being placed.
        """
        try:
            handle, attachment = await persist(self._again)
        except FAILURES as wrong:
            raise typed(wrong, self._id) from wrong
        environment = self._spec.environment
        if not named:
            return Placed(handle, attachment, environment, made=True)
        origin = await Origin.of(self._client, self._id, handle.first_execution_run_id)
        if origin.token == self._token:
            return Placed(handle, attachment, environment, made=True)
        if differs := origin.differences(self._spec, ignore):
            raise already(self._id, differs)
        return Placed(handle, attachment, environment, made=False)

    async def _again(self) -> tuple[WorkflowHandle[Any, SandboxReport], Attachment]:
        """A try; any but the first one looks whether one before it started the sandbox, and its answer was lost.

        The server knows an update that it has taken, but one that died between the start and the update knows only the
        start: once that sandbox has ended, another try would run its task a second time.
        """
        if self._tried and (mine := await self._mine()):
            return mine
        self._tried = True
        return await self._once()

    async def _mine(self) -> tuple[WorkflowHandle[Any, SandboxReport], Attachment] | None:
        """The run that an earlier try made, if any. Raises the typed error when it ended before it had a host."""
        try:
            event = await _first_event(self._client, self._id, None)
        except RPCError as wrong:
            if wrong.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        begun = event.workflow_execution_started_event_attributes
        if await _token_of(self._client, begun) != self._token:
            return None
        run = begun.original_execution_run_id
        handle: WorkflowHandle[Any, SandboxReport] = self._client.get_workflow_handle(
            self._id, run_id=run, first_execution_run_id=run, result_type=SandboxReport
        )
        try:
            attachment: Attachment = await handle.execute_update(
                "attach", self._key, id=self._update, result_type=Attachment
            )
            return handle, attachment
        except RPCError as wrong:
            if wrong.status is not RPCStatusCode.NOT_FOUND:
                raise
        # It has ended; its host was told of this caller's key by the start itself.
        status: Status = await handle.query("status", result_type=Status)
        if not status.host:
            raise from_report(await handle.result())
        return handle, Attachment(sandbox_id=status.sandbox_id, host=status.host, relay=status.relay)

    async def _once(self) -> tuple[WorkflowHandle[Any, SandboxReport], Attachment]:
        start: WithStartWorkflowOperation[Any, SandboxReport] = WithStartWorkflowOperation(
            names.SANDBOX,
            self._spec,
            id=self._id,
            task_queue=names.CONTROL_QUEUE,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            result_type=SandboxReport,
            static_summary=summary(self._spec),
            memo={_TOKEN: self._token},
        )
        try:
            attachment: Attachment = await self._client.execute_update_with_start_workflow(
                "attach", self._key, start_workflow_operation=start, id=self._update, result_type=Attachment
            )
        except RPCError as wrong:
            if wrong.status is not RPCStatusCode.NOT_FOUND:
                with contextlib.suppress(RPCError):
                    await start.workflow_handle()  # the same error: asyncio complains of one that nobody saw
                raise  # passes, perhaps: the caller repeats it
            raise await _why(start, wrong, self._id) from wrong
        except FAILURES as wrong:
            raise await _why(start, wrong, self._id) from wrong
        return await start.workflow_handle(), attachment


@dataclass(frozen=True, slots=True)
class Origin:
    """What a sandbox was started with, from the first event of its history: strongly consistent, also after its end."""

    token: str
    argument: Any

    @classmethod
    async def of(cls, client: Client, workflow_id: str, first_run: str | None) -> "Origin":
        """Raises the typed error when Temporal does not answer, NoSuchSandbox when its history is gone."""
        try:
            event = await persist(lambda: _first_event(client, workflow_id, first_run), 10)
        except FAILURES as wrong:
            raise typed(wrong, workflow_id) from wrong
        begun = event.workflow_execution_started_event_attributes
        convert = client.data_converter
        argument = await convert.decode(begun.input.payloads, [dict]) if begun.input.payloads else [{}]
        return cls(await _token_of(client, begun), argument[0])

    def differences(self, asked: SandboxSpec, ignore: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """The fields, as `a.b`, in which what was asked is not what it was started with."""
        try:
            begun = SandboxSpec.model_validate(self.argument or {})
        except ValidationError as wrong:  # started by a newer client, whose fields are not known here
            return tuple(sorted({".".join(map(str, error["loc"])) or "spec" for error in wrong.errors()}))
        return tuple(differing(begun.model_dump(exclude=set(ignore)), asked.model_dump(exclude=set(ignore))))


def differing(one: dict[str, Any], other: dict[str, Any], path: str = "") -> list[str]:
    """Paths of the values in which two dumps of a model differ."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += differing(mine, theirs, f"{path}{name}.")
        elif mine != theirs:
            found.append(f"{path}{name}")
    return found


def already(workflow_id: str, differs: tuple[str, ...] = ()) -> AlreadyExists:
    """The error for a name that is taken."""
    what = f" with another spec: {', '.join(differs)} differ{'' if len(differs) > 1 else 's'}" if differs else ""
    info = ErrorInfo(
        kind=ErrorKind.BAD_SPEC,
        message=f"a sandbox of this name is running{', started' if differs else ''}{what}",
        field=workflow_id,
        remedy="choose another name, `attach` to it, or `stop` it first",
    )
    return AlreadyExists(info, differs)


def summary(spec: SandboxSpec) -> str:
    """The line that Temporal's UI shows."""
    what = spec.task.argv[0] if spec.task else "session"
    return f"{spec.environment} · {spec.image} · {what} · {spec.shape.vcpu} vCPU"[:190]


async def _token_of(client: Client, begun: Any) -> str:
    """The random word of the start that a first event is about; empty when it was no start of ours."""
    held: dict[str, Payload] = dict(begun.memo.fields)
    return str((await client.data_converter.decode([held[_TOKEN]], [str]))[0]) if _TOKEN in held else ""


async def _first_event(client: Client, workflow_id: str, run: str | None) -> Any:
    handle = client.get_workflow_handle(workflow_id, run_id=run)
    events: AsyncIterator[Any] = handle.fetch_history_events(page_size=1)
    return await anext(events)


async def _why(start: WithStartWorkflowOperation[Any, SandboxReport], wrong: Exception, name: str) -> ClientError:
    """Why nothing was placed, in the workflow's own words where it had the time to say them."""
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            handle = await start.workflow_handle()
            report = await handle.result()
    except TimeoutError:
        return typed(wrong, name)
    except FAILURES as said:
        return typed(said, name)
    return from_report(report)
