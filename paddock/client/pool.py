"""Pools of hosts: every one that is open, where one is, and how large it may be."""

import uuid
from collections.abc import AsyncGenerator
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from paddock.client.directory import QUICKLY
from paddock.client.errors import ClientError
from paddock.client.failures import FAILURES, bad_spec, persist, typed
from paddock.contracts import names
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.ids import EnvironmentName
from paddock.contracts.pool import PoolSize, PoolStatus

_PREFIX: Final = names.pool_workflow_id("")
_OPEN: Final = f'WorkflowType="{names.HOST_POOL}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{_PREFIX}"'
_ENVIRONMENT: Final[TypeAdapter[str]] = TypeAdapter(EnvironmentName)
_START: Final = "`[pool]` in the settings of its environment worker starts one; `paddock pool ls` lists those that run"


class NoSuchPool(ClientError):
    """No pool of this environment runs."""


def fits(kind: TypeAdapter[str], name: str) -> bool:
    """Whether a text can be a name of this kind at all: what cannot is asked of no server."""
    try:
        kind.validate_python(name)
    except ValidationError:
        return False
    return True


def shown(name: str) -> str:
    """A name as an error may say it: bytes of a command line that are no text come escaped."""
    return name if name.isprintable() else ascii(name)


class Pool:
    """One environment's pool of hosts."""

    def __init__(self, client: Client, environment: str) -> None:
        self._client, self.environment = client, environment

    async def status(self) -> PoolStatus:
        """Where it is, from the pool itself. Raises NoSuchPool when none runs, with the words of one that failed."""
        handle = await self._running()
        try:
            said: PoolStatus = await handle.query("status", result_type=PoolStatus, rpc_timeout=QUICKLY)
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong
        return said

    async def set(self, **changes: int) -> PoolStatus:
        """Change what is named of its PoolSize, leave the rest as it is; answers the pool's word, `size` the new one.

        Raises BadSpec in pydantic's words, and nothing is changed then. Of two who set at once, the later one may take
        back what the earlier one set.
        """
        present = (await self.status()).size
        try:
            size = PoolSize.model_validate({**present.model_dump(), **changes})
        except ValidationError as wrong:
            raise bad_spec(wrong) from wrong
        handle, id_ = self._handle(), str(uuid.uuid4())  # by its id, an answer that was lost is not a second update
        try:
            return await persist(lambda: handle.execute_update("set", size, id=id_, result_type=PoolStatus))
        except RPCError as wrong:
            if wrong.status is RPCStatusCode.NOT_FOUND:
                await self._running()  # it says how the pool ended meanwhile
            raise typed(wrong, handle.id) from wrong
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong

    def _handle(self) -> WorkflowHandle[Any, PoolStatus]:
        return self._client.get_workflow_handle(names.pool_workflow_id(self.environment), result_type=PoolStatus)

    async def _running(self) -> WorkflowHandle[Any, PoolStatus]:
        if not fits(_ENVIRONMENT, self.environment):
            raise self._none(f"there is no pool of {shown(self.environment)}")
        handle = self._handle()
        try:
            found = await handle.describe(rpc_timeout=QUICKLY)
        except RPCError as wrong:
            if wrong.status is RPCStatusCode.NOT_FOUND:
                raise self._none(f"there is no pool of {self.environment}") from wrong
            raise typed(wrong, handle.id) from wrong
        if found.status is not WorkflowExecutionStatus.RUNNING:
            raise self._none(f"the pool of {self.environment} {await self._end(handle)}")
        return handle

    @staticmethod
    async def _end(handle: WorkflowHandle[Any, PoolStatus]) -> str:
        try:
            await persist(handle.result)
        except WorkflowFailureError as wrong:
            return f"has ended: {wrong.cause}"
        except FAILURES as wrong:
            raise typed(wrong, handle.id) from wrong
        return "was closed"

    def _none(self, words: str) -> NoSuchPool:
        field = shown(names.pool_workflow_id(self.environment))
        return NoSuchPool(ErrorInfo(kind=ErrorKind.NOT_FOUND, message=words, field=field, remedy=_START))


async def open_pools(client: Client) -> AsyncGenerator[Pool, None]:
    """Every open pool, as Temporal's index knows it, a moment late."""
    try:
        async for found in client.list_workflows(_OPEN):
            yield Pool(client, found.id.removeprefix(_PREFIX))
    except FAILURES as wrong:
        raise typed(wrong, "pools") from wrong
