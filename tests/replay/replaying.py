"""Replay of committed histories by the code as it is now; what differs is said in words.

`python -m tests.replay.replaying [NAME ...]` replays them, all by default; 1 when one of them does not replay.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from paddock.temporal.plugin import plugin
from paddock.temporal.quiet import quiet
from tests.replay.control import name_of, served, settings
from tests.replay.history import load, numbered, queue_kind, recorded, said, timer, upsert

STUCK: Final = """\
An open workflow of the release before would be stuck on this for ever. Either
  - keep the old way for the runs that took it: `if workflow.patched("what-changed"): new way, else: old way`, or
  - when no release has this workflow yet, record again by `make histories`, and commit what that writes.
docs/replay.md says more."""
MEANT: Final = """\
Open workflows go on with this. When it is meant, record again by `make histories`, and commit what that writes.
docs/replay.md says more."""
LOCAL: Final = "local activity "
NOTHING: Final = "nothing more"


def replayer(runner: WorkflowRunner | None = None, only: str = "") -> Replayer:
    """A replayer that runs workflows as the control worker does: same list, converter, failure types and runner.

    `only` leaves out every workflow but one, which saves the time to read the others in.
    """
    given = settings() | ({"workflow_runner": runner} if runner else {})
    given["workflows"] = [one for one in given["workflows"] if only in ("", name_of(one))]
    return Replayer(plugins=[plugin()], **given)


@dataclass
class Watched(WorkflowRunner):
    """A runner that notes in words what each run commands, for the day that a replay fails."""

    inner: WorkflowRunner
    given: list[str] = field(default_factory=list)

    def prepare_workflow(self, defn: Any) -> None:
        self.inner.prepare_workflow(defn)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self.inner.set_worker_level_failure_exception_types(types)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = self.inner.create_instance(det)
        activate, notes = instance.activate, _Notes(self.given)

        def watched(act: WorkflowActivation) -> WorkflowActivationCompletion:
            for job in act.jobs:
                if job.HasField("do_update"):
                    notes.names["update", job.do_update.protocol_instance_id] = f"update {job.do_update.name}"
            done = activate(act)
            for command in done.successful.commands:
                notes.add(command, act.history_length)
            return done

        instance.activate = watched  # type: ignore[method-assign]
        return instance


@dataclass
class _Notes:
    """Commands in words; what begins and is cancelled within one workflow task was never sent."""

    given: list[str]
    names: dict[tuple[str, Any], str] = field(default_factory=dict)
    begun: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, command: WorkflowCommand, task: int) -> None:
        match command.WhichOneof("variant"):
            case "start_timer":
                self.begun["timer", command.start_timer.seq] = (len(self.given), task)
            case "schedule_activity":
                self.begun["activity", command.schedule_activity.seq] = (len(self.given), task)
            case "cancel_timer":
                if self._unsent("timer", command.cancel_timer.seq, task):
                    return
            case "request_cancel_activity":
                if self._unsent("activity", command.request_cancel_activity.seq, task):
                    return
        if words := _words(command, self.names):
            self.given.append(words)

    def _unsent(self, kind: str, seq: int, task: int) -> bool:
        at, begun_in = self.begun[kind, seq]
        if begun_in == task:
            self.given[at] = ""
        return begun_in == task


def _words(command: WorkflowCommand, names: dict[tuple[str, Any], str]) -> str:
    """A command as `history` says it of the event that it becomes."""
    kind = command.WhichOneof("variant")
    match kind:
        case "schedule_activity":
            given = command.schedule_activity
            names["activity", given.seq] = f"activity {given.activity_type} on {queue_kind(given.task_queue)}"
            return names["activity", given.seq]
        case "request_cancel_activity":
            return f"cancel {names['activity', command.request_cancel_activity.seq]}"
        case "schedule_local_activity":
            return LOCAL + command.schedule_local_activity.activity_type
        case "start_timer":
            names["timer", command.start_timer.seq] = timer(said(command.user_metadata.summary))
            return names["timer", command.start_timer.seq]
        case "cancel_timer":
            return f"cancel {names['timer', command.cancel_timer.seq]}"
        case "upsert_workflow_search_attributes":
            return upsert(command.upsert_workflow_search_attributes.search_attributes.indexed_fields)
        case "update_response":
            answer = command.update_response
            verb = {"accepted": "accept", "completed": "complete"}.get(answer.WhichOneof("response") or "", "fail")
            return f"{verb} {names['update', answer.protocol_instance_id]}"
        case "set_patch_marker":
            return f"patch {command.set_patch_marker.patch_id}"
        case "complete_workflow_execution":
            return "complete workflow"
        case "fail_workflow_execution":
            info = command.fail_workflow_execution.failure.application_failure_info
            return f"fail workflow: {info.type}"
        case "cancel_workflow_execution":
            return "cancel workflow"
        case "continue_as_new_workflow_execution":
            return "continue as new"
        case "signal_external_workflow_execution":
            return f"signal {command.signal_external_workflow_execution.signal_name}"
        case "start_child_workflow_execution":
            return f"child {command.start_child_workflow_execution.workflow_type}"
    return ""


async def changed(name: str, history: WorkflowHistory | None = None) -> str:
    """What the code does differently from this recorded history, in words; empty when it gives the same commands.

    This sees more than the server would: an activity that goes to another queue replays, and is another command.
    """
    workflow = name.partition("/")[0]
    if workflow not in served():
        return f"{name}: the control worker serves no workflow {workflow} any more. {STUCK}"
    history = history or load(name)
    watched = Watched(settings().get("workflow_runner") or SandboxedWorkflowRunner())
    result = await replayer(watched, workflow).replay_workflow(history, raise_on_replay_failure=False)
    if result.replay_failure is not None:
        return explain(name, history, watched.given, str(result.replay_failure))
    if _parting([words for _, words in numbered(history)], watched.given) is None:
        return ""
    return explain(name, history, watched.given)


def explain(name: str, history: WorkflowHistory, given: list[str], failure: str = "") -> str:
    """Which command differs: recorded beside what the code gives now; `failure` is what the replay failed with."""
    workflow, _, scenario = name.partition("/")
    was = list(numbered(history))
    at, now = _parting([words for _, words in was], given) or (len(was), NOTHING)
    event, recorded_words = was[at] if at < len(was) else (history.events[-1].event_id, NOTHING)
    before = was[at - 1][1] if at else "the start"
    does = "does not replay" if failure else "replays, but gives another command than in"
    return (
        f"{workflow} {does} its recorded history {scenario!r} (tests/replay/histories/{name}.json.gz).\n"
        f"Command {at + 1} of {len(was)}, event {event}, after `{before}`:\n"
        f"  recorded      {recorded_words}\n"
        f"  the code now  {now}\n" + (f"Temporal says: {_short(failure)}\n{STUCK}" if failure else MEANT)
    )


def _parting(was: list[str], now: list[str]) -> tuple[int, str] | None:
    """Where the two part, and what the code gives there; None when they do not.

    A local activity is recorded when it ends and commanded when it begins: its own place may differ.
    """
    left = [(at, words) for at, words in enumerate(was) if not words.startswith(LOCAL)]
    right = [words for words in now if words and not words.startswith(LOCAL)]
    for number in range(max(len(left), len(right))):
        at, words = left[number] if number < len(left) else (len(was), NOTHING)
        given = right[number] if number < len(right) else NOTHING
        if words != given:
            return at, given
    before, after = ([words for words in side if words.startswith(LOCAL)] for side in (was, now))
    return None if before == after else (len(was), f"local activities {after}, not {before}")


def _short(words: str) -> str:
    """The message alone, out of the SDK's print of a whole failure."""
    found = re.search(r'message: "((?:[^"\\\\]|\\\\.)*)"', words)
    return (found[1] if found else words)[:400]


async def main(names: list[str]) -> int:
    quiet()
    wrong = [words for name in names or recorded() if (words := await changed(name))]
    print("\n\n".join(wrong) or f"{len(names or recorded())} histories replay")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
