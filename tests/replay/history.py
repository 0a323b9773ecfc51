"""A recorded history as a file, and the commands of a workflow in words: what must stay the same from edit to edit."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from paddock.contracts.names import HOST, HOST_POOL, host_workflow_id, pool_workflow_id
from tests.replay.world import ENVIRONMENT

HERE: Final = Path(__file__).parent
HISTORIES: Final = HERE / "histories"
FINGERPRINTS: Final = HERE / "fingerprints.json"
Words = list[Any]  # commands; a part that repeats is {"times": how often, "commands": what}

_LONGEST_CYCLE: Final = 40
_DROPPED: Final = {"stackTrace"}  # it names files of the machine that recorded


def save(name: str, history: WorkflowHistory) -> int:
    """Write a history without what names the machine, the same bytes for the same history; answers their number."""
    path = HISTORIES / f"{name}.json.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_scrubbed(json.loads(history.to_json())), separators=(",", ":"), sort_keys=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path.stat().st_size


def text(name: str) -> str:
    return gzip.decompress((HISTORIES / f"{name}.json.gz").read_bytes()).decode()


def workflow_id(name: str) -> str:
    """The id of a scenario's workflow; a `Host` or `HostPool` refuses any but the one that belongs to its own spec."""
    workflow, _, scenario = name.partition("/")
    if workflow == HOST_POOL:
        return pool_workflow_id(scenario)
    return host_workflow_id(ENVIRONMENT, scenario) if workflow == HOST else f"recorded/{name}"


def load(name: str) -> WorkflowHistory:
    return WorkflowHistory.from_json(workflow_id(name), text(name))


def recorded() -> list[str]:
    """Names of the committed histories: `Workflow/scenario`."""
    found = HISTORIES.rglob("*.json.gz")
    return sorted(str(path.relative_to(HISTORIES)).removesuffix(".json.gz") for path in found)


def fingerprints() -> dict[str, Words]:
    committed: dict[str, Words] = json.loads(FINGERPRINTS.read_text())
    return committed


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _scrubbed(one) for key, one in value.items() if key not in _DROPPED}
    return [_scrubbed(one) for one in value] if isinstance(value, list) else value


def commands(history: WorkflowHistory) -> list[str]:
    """Every command that the workflow gave, in order, in words."""
    return [words for _, words in numbered(history)]


def numbered(history: WorkflowHistory) -> Iterator[tuple[int, str]]:
    """Each command with the number of the event that it became."""
    names: dict[int, str] = {}
    for event in history.events:
        if said := _words(event, names):
            names[event.event_id] = said
            yield event.event_id, said


def queue_kind(queue: str) -> str:
    """Whose queue it is, without environment and host."""
    parts = queue.split("/")
    return parts[0] + ("/ctl" if parts[0] == "host" and parts[-1] == "ctl" else "")


def said(payload: Payload) -> str:
    """A summary's text."""
    return str(json.loads(payload.data)) if payload.data else ""


def upsert(fields: Any) -> str:
    """Search attributes by name; those of a closed set with their value."""
    shown = []
    for name in sorted(fields):
        shown.append(f"{name}={said(fields[name])}" if name == "PaddockState" else name)
    return "upsert " + ", ".join(shown)


def timer(summary: str) -> str:
    return f"timer ({summary})" if summary else "timer"


def _words(event: HistoryEvent, names: dict[int, str]) -> str:
    """One event as the command behind it, or nothing: the server's own events are no commands."""
    match event.WhichOneof("attributes"):
        case "activity_task_scheduled_event_attributes":
            scheduled = event.activity_task_scheduled_event_attributes
            return f"activity {scheduled.activity_type.name} on {queue_kind(scheduled.task_queue.name)}"
        case "activity_task_cancel_requested_event_attributes":
            return f"cancel {names[event.activity_task_cancel_requested_event_attributes.scheduled_event_id]}"
        case "timer_started_event_attributes":
            return timer(said(event.user_metadata.summary))
        case "timer_canceled_event_attributes":
            return f"cancel {names[event.timer_canceled_event_attributes.started_event_id]}"
        case "marker_recorded_event_attributes":
            return _marker(event)
        case "upsert_workflow_search_attributes_event_attributes":
            given = event.upsert_workflow_search_attributes_event_attributes
            return upsert(given.search_attributes.indexed_fields)
        case "workflow_execution_update_accepted_event_attributes":
            accepted = event.workflow_execution_update_accepted_event_attributes
            name = f"update {accepted.accepted_request.input.name}"
            names[event.event_id] = name
            return f"accept {name}"
        case "workflow_execution_update_completed_event_attributes":
            completed = event.workflow_execution_update_completed_event_attributes
            update = names[completed.accepted_event_id].removeprefix("accept ")
            return f"{'fail' if completed.outcome.HasField('failure') else 'complete'} {update}"
        case "signal_external_workflow_execution_initiated_event_attributes":
            return f"signal {event.signal_external_workflow_execution_initiated_event_attributes.signal_name}"
        case "start_child_workflow_execution_initiated_event_attributes":
            return f"child {event.start_child_workflow_execution_initiated_event_attributes.workflow_type.name}"
        case "workflow_execution_completed_event_attributes":
            return "complete workflow"
        case "workflow_execution_failed_event_attributes":
            failure = event.workflow_execution_failed_event_attributes.failure
            return f"fail workflow: {failure.application_failure_info.type}"
        case "workflow_execution_canceled_event_attributes":
            return "cancel workflow"
        case "workflow_execution_continued_as_new_event_attributes":
            return "continue as new"
    return ""


def _marker(event: HistoryEvent) -> str:
    marker = event.marker_recorded_event_attributes
    data = [json.loads(one.data) for found in marker.details.values() for one in found.payloads if one.data]
    if marker.marker_name == "core_local_activity":
        return "local activity " + next(str(one["activity_type"]) for one in data if "activity_type" in one)
    if marker.marker_name == "core_patch":
        return "patch " + next(str(one["id"]) for one in data if "id" in one)
    return f"marker {marker.marker_name}"


def folded(said: Sequence[str]) -> Words:
    """The same commands with what repeats three times or more written once."""
    folds: Words = []
    at = 0
    while at < len(said):
        times, size = max(((_times(said, at, size), size) for size in range(1, _LONGEST_CYCLE)), key=_saved)
        if times < 3:
            folds.append(said[at])
            at += 1
            continue
        folds.append({"times": times, "commands": list(said[at : at + size])})
        at += times * size
    return folds


def unfolded(folds: Words) -> list[str]:
    flat: list[str] = []
    for fold in folds:
        flat += fold["commands"] * fold["times"] if isinstance(fold, dict) else [fold]
    return flat


def _times(said: Sequence[str], at: int, size: int) -> int:
    block, times = said[at : at + size], 1
    while said[at + times * size : at + (times + 1) * size] == block and len(block) == size:
        times += 1
    return times


def _saved(fold: tuple[int, int]) -> tuple[int, int]:
    times, size = fold
    return (times - 1) * size if times >= 3 else 0, -size
