"""`LateReader`: lets a caller's key open the streams of a sandbox that ended, while its host keeps what it left."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import hosts, names
    from paddock.contracts.streams import LateCaller


@workflow.defn(name=names.LATE_READER, failure_exception_types=[ValidationError])
class LateReader:
    """A sandbox that ended takes no `attach` any more: its host is told of the key by this."""

    @workflow.run
    async def run(self, caller: LateCaller) -> None:
        ref = hosts.SandboxRef(
            sandbox_id=caller.sandbox_id, workflow_id="", run_id="", environment=caller.environment, host=caller.host
        )
        await workflow.execute_activity(
            "allow_caller",
            hosts.AllowCaller(ref=ref, caller_key=caller.caller_key),
            task_queue=names.host_control_queue(caller.environment, caller.host),
            start_to_close_timeout=timedelta(seconds=10),
            schedule_to_close_timeout=timedelta(seconds=20),  # a host that is gone lets nobody in
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=0.1), maximum_attempts=5),
            summary="allow a late reader",
        )
