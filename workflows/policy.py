"""`PolicyRollout`, first cut: store a document under its name and the next revision."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import names
    from paddock.contracts.policies import PolicyApplied, PolicyDocument


@workflow.defn(name=names.POLICY_ROLLOUT, failure_exception_types=[ValidationError])
class PolicyRollout:
    """Check a policy document and keep it; sandboxes name it as `name` or `name@revision`."""

    @workflow.run
    async def run(self, document: PolicyDocument) -> PolicyApplied:
        applied: PolicyApplied = await workflow.execute_activity(
            "store_policy",
            document,
            task_queue=names.CONTROL_QUEUE,
            result_type=PolicyApplied,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=0.1), maximum_attempts=5),
            summary="parse, check, store",
        )
        return applied
