"""`Host`, first cut: a machine that joined; one heartbeat for the host's whole life says that it is there."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import names
    from paddock.contracts.hosts import HostSpec

HOLD = timedelta(days=3650)


@workflow.defn(name=names.HOST, failure_exception_types=[ValidationError])
class Host:
    """A host's entity: `ready` while its hold heartbeats, `unreachable` while nobody answers, `gone` when it left."""

    @workflow.init
    def __init__(self, spec: HostSpec) -> None:
        self.spec, self.state, self.left = spec, "joining", False
        self.returned = False

    @workflow.run
    async def run(self, spec: HostSpec) -> str:
        await workflow.wait_condition(lambda: self.returned or self.left)
        while not self.left:
            self._show("ready")
            hold = asyncio.ensure_future(self._hold())
            left = asyncio.ensure_future(workflow.wait_condition(lambda: self.left))
            await workflow.wait([hold, left], return_when=asyncio.FIRST_COMPLETED)
            hold.cancel()
            left.cancel()
            await asyncio.gather(hold, left, return_exceptions=True)
            if self.left:
                break
            self.returned = False
            self._show("unreachable")
            await workflow.wait_condition(lambda: self.returned or self.left)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(spec)
        self._show("gone")
        return self.state

    async def _hold(self) -> None:
        queue = names.host_control_queue(self.spec.environment, self.spec.host)
        try:
            await workflow.execute_activity(
                "hold_host",
                self.spec,
                task_queue=queue,
                start_to_close_timeout=HOLD,
                schedule_to_start_timeout=timedelta(seconds=10),
                heartbeat_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=1)),
                summary="one heartbeat for the whole host",
            )
        except ActivityError:
            return

    def _show(self, state: str) -> None:
        self.state = state
        workflow.set_current_details(
            f"| | |\n|---|---|\n| host | `{self.spec.host}` |\n| environment | `{self.spec.environment}` |\n"
            f"| state | **{state}** |\n| slots | {self.spec.slots} |\n"
        )

    @workflow.signal(description="The host's worker started, again or for the first time")
    def joined(self, spec: HostSpec) -> None:
        self.spec, self.returned = spec, True

    @workflow.signal(description="The host leaves its environment for good")
    def leave(self) -> None:
        self.left = True

    @workflow.query(description="Where the host is: joining, ready, unreachable or gone")
    def status(self) -> str:
        return self.state
