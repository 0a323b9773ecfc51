"""Sending a policy to the control plane's store."""

import uuid

from pydantic import ValidationError
from temporalio.client import Client

from paddock.client.failures import FAILURES, bad_spec, typed
from paddock.contracts import names
from paddock.contracts.policies import PolicyApplied, PolicyDocument


async def apply_policy(client: Client, text: str, file: str, author: str) -> PolicyApplied:
    """Check a document and keep it as the next revision of its name; `file` and `author` are for the record.

    Raises BadSpec with the line and column of each mistake.
    """
    try:
        document = PolicyDocument(text=text, file=file, author=author)
    except ValidationError as wrong:
        raise bad_spec(wrong) from wrong
    try:
        applied: PolicyApplied = await client.execute_workflow(
            names.POLICY_ROLLOUT,
            document,
            id=f"policy/{uuid.uuid4().hex[:12]}",
            task_queue=names.CONTROL_QUEUE,
            result_type=PolicyApplied,
            static_summary=f"apply {file}"[:190] if file else "apply a policy",
        )
    except FAILURES as wrong:
        raise typed(wrong, file or "policy") from wrong
    return applied
