"""`Paddock`: the way in. One connection to Temporal, from which sandboxes are started, found and ended."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from temporalio.client import Client, WorkflowHandle

from paddock.client.asked import chosen_name, not_compared, whole_spec
from paddock.client.directory import QUICKLY, Directory, SandboxInfo
from paddock.client.discover import running
from paddock.client.errors import ClientError, ended
from paddock.client.failures import FAILURES, persist, typed
from paddock.client.hosts import Host, HostInfo, hosts
from paddock.client.keys import CallerKey
from paddock.client.late import let_in
from paddock.client.pack import packed
from paddock.client.policy import apply_policy
from paddock.client.pool import Pool, open_pools
from paddock.client.sandbox import Sandbox
from paddock.client.start import Start, already
from paddock.client.stream import Progress, Streams
from paddock.contracts import names
from paddock.contracts.policies import PolicyApplied
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec
from paddock.contracts.status import Attachment, Status
from paddock.temporal.connect import configured, connect


def _silent(done: int, of: int) -> None:
    """Nobody watches this upload."""


class Paddock:
    """A client; `async with Paddock.connect() as paddock` opens and closes it."""

    def __init__(self, address: str | None, profile: str | None, namespace: str | None, state: Path | None) -> None:
        self._address, self._profile, self._namespace, self._state = address, profile, namespace, state
        self._client: Client | None = None
        self._key = CallerKey()

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
        self, spec: SandboxSpec | None = None, *, name: str | None = None, get_or_create: bool = False, **fields: Any
    ) -> AsyncIterator[Sandbox]:
        """A sandbox for the length of a block; leaving it ends the sandbox, and `report` has the receipts then.

        Fields are SandboxSpec's, and `inputs` may also map paths below /work to local paths. An error in the block goes
        on, after the sandbox is ended. With `get_or_create` the sandbox is shared: one of this name that runs is taken
        when its spec is the same, and leaving the block lets go of it. Else a name that is taken raises AlreadyExists.
        """
        box = await self.start(spec, name=name, **fields)
        if not box.made and not get_or_create:
            await box.close()
            raise already(box.workflow_id)
        if get_or_create:
            try:
                yield box
            finally:
                await box.close()
            return
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
        request_id: str | None = None,
        inputs: Mapping[str, Path] | None = None,
        progress: Progress = _silent,
        **fields: Any,
    ) -> Sandbox:
        """A sandbox that goes on by itself: answers once it is placed and its inputs are with its host.

        A start may be repeated: of one name and one spec it answers the same sandbox while that runs, and `made` says
        whether this call made it. Of another spec it raises AlreadyExists, which names the fields that differ. A name
        whose sandbox has ended makes a new one, but for a start of the same `request_id`, which answers the ended one:
        what was wanted once happens once, also for a service that dies and asks again.
        Raises BadSpec, Refused or the typed error of whatever kept it from a host.
        """
        with packed(inputs) if inputs else nullcontext() as tar:
            whole = whole_spec(spec, fields, self._key.public, tar)
            workflow_id = names.sandbox_workflow_id(chosen_name(name, request_id))
            start = Start(self.client, whole, workflow_id, self._key.public, request_id)
            placed = await start.place(named=name is not None, ignore=not_compared(spec, fields))
            if request_id is not None and not placed.made:
                return await self.reopen(workflow_id)  # the host was told of another process's key
            box = self._box(placed.handle, placed.attachment, placed.environment, placed.made)
            if tar is not None:
                try:
                    await box.upload(tar, progress)
                except BaseException:
                    if box.made:
                        await self._abandon(box)
                    raise
        return box

    async def get_or_create(self, name: str, spec: SandboxSpec | None = None, **fields: Any) -> Sandbox:
        """The sandbox of this name that runs, or a new one: one round trip, as `start` with a name."""
        return await self.start(spec, name=name, **fields)

    @staticmethod
    async def _abandon(box: Sandbox) -> None:
        try:
            await box.stop("its caller failed")
        except ClientError:
            pass  # the caller's own error is the one to see

    async def attach(self, name: str) -> Sandbox:
        """A running sandbox by its name or workflow id, with this caller's key for its streams.

        Raises Ended with the report when it runs no more: `reopen` then reads what it left.
        """
        handle = await self._directory().handle(name)
        try:
            status: Status = await handle.query("status", result_type=Status, rpc_timeout=QUICKLY)
            placed: Attachment = await persist(
                lambda: handle.execute_update("attach", self._key.public, result_type=Attachment)
            )
        except FAILURES as wrong:
            report = await self._directory().report(name)
            raise (ended(report, name) if report else typed(wrong, name)) from wrong
        return self._box(handle, placed, status.environment)

    async def reopen(self, name: str) -> Sandbox:
        """A sandbox that ended within the last hour, for what its host still keeps: output of tasks, and outputs.

        Raises NoSuchSandbox for a name of none; one that runs is attached to.
        """
        report = await self._directory().report(name)
        if report is None:
            return await self.attach(name)
        handle, status = await self._directory().handle(name), await self._directory().status(name)
        if not status.host:
            raise ended(report, name)  # it never had one
        await let_in(self.client, status, self._key.public)
        placed = Attachment(sandbox_id=status.sandbox_id, host=status.host, relay=status.relay)
        return self._box(handle, placed, status.environment, late=True)

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

    def pools(self) -> "AsyncGenerator[Pool, None]":
        """Every open pool of hosts."""
        return open_pools(self.client)

    def pool(self, environment: str) -> Pool:
        """The pool of hosts of an environment; nothing is asked before one of its methods is."""
        return Pool(self.client, environment)

    def hosts(
        self, environment: str | None = None, all_: bool = False, limit: int = 1000
    ) -> "AsyncGenerator[HostInfo, None]":
        """Hosts, newest first: the open ones, or with `all_` those that ended too."""
        return hosts(self.client, environment, all_, limit)

    def host(self, environment: str, name: str) -> Host:
        """A host by its name; nothing is asked before one of its methods is."""
        return Host(self.client, environment, name)

    def _directory(self) -> Directory:
        return Directory(self.client)

    def _box(
        self,
        handle: WorkflowHandle[Any, SandboxReport],
        placed: Attachment,
        environment: str,
        made: bool = False,
        late: bool = False,
    ) -> Sandbox:
        streams = Streams(
            relay=placed.relay, environment=environment, host=placed.host, sandbox_id=placed.sandbox_id, key=self._key
        )
        return Sandbox(handle, streams, placed.sandbox_id, placed.host, made, late)
