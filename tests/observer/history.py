"""Workflow histories, fetched straight from the server: the JSON that people see, and every payload's own bytes."""

from __future__ import annotations

from temporalio.client import Client


async def histories(address: str, namespace: str = "default") -> tuple[tuple[str, bytes], ...]:
    """(name, bytes) of every workflow that the server knows, for `Places.texts`."""
    client = await Client.connect(address, namespace=namespace)
    found = []
    async for execution in client.list_workflows():
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        history = await handle.fetch_history()
        name = f"history of {execution.id} run {execution.run_id}"
        payloads = b"\n".join(event.SerializeToString() for event in history.events)
        described = await handle.describe()
        found += [
            (name, history.to_json().encode()),
            (f"payloads in {name}", payloads),
            (f"description of {execution.id}", described.raw_description.SerializeToString()),
        ]
    return tuple(found)
