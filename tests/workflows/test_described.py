"""What a person sees in the Temporal UI has words: each handler a description, each activity and timer a summary."""

import ast
import asyncio
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.ground import HostActivities
from paddock.contracts import hosts, names
from paddock.contracts.ground import HostReport
from paddock.contracts.report import SandboxReport
from paddock.contracts.spec import SandboxSpec, TaskSpec
from tests.workflows.conftest import ENVIRONMENT, World
from tests.workflows.test_sandbox import start
from workflows.host import Host
from workflows.sandbox import Sandbox

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
TASK = TaskSpec(argv=("true",))
SHOWN = (
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    EventType.EVENT_TYPE_TIMER_STARTED,
    EventType.EVENT_TYPE_MARKER_RECORDED,  # a local activity
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
)
# Calls that put a row into the timeline, and the argument that gives the row its words.
WORDS_OF = {
    "execute_activity": "summary",
    "start_activity": "summary",
    "execute_local_activity": "summary",
    "start_local_activity": "summary",
    "execute_activity_method": "summary",
    "start_activity_method": "summary",
    "sleep": "summary",
    "wait_condition": "timeout_summary",
    "execute_child_workflow": "static_summary",
    "start_child_workflow": "static_summary",
}
NAMELESS_TIMERS = ("asyncio.sleep", "asyncio.wait_for", "asyncio.timeout")


# In the source: a path that no test takes cannot be forgotten


def without_words(text: str) -> list[str]:
    """Each call of a workflow module that would put a row without words into the timeline, as `line: call`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        wanted = WORDS_OF.get(called.removeprefix("workflow."), "") if called.startswith("workflow.") else ""
        if called == "workflow.wait_condition" and "timeout" not in given:
            continue  # no timer
        if (wanted and wanted not in given) or called in NAMELESS_TIMERS:
            found.append(f"{node.lineno}: {called}")
    return found


def test_every_call_that_shows_in_the_timeline_gives_its_words() -> None:
    silent = {path.name: found for path in WORKFLOWS.glob("*.py") if (found := without_words(path.read_text()))}
    assert not silent, f"give {', '.join(sorted({*WORDS_OF.values()}))}"


@pytest.mark.parametrize(
    "call",
    [
        'workflow.execute_activity("x", 1, task_queue="q")',
        'workflow.execute_local_activity("x", 1)',
        "workflow.sleep(seconds(1))",
        "workflow.wait_condition(lambda: True, timeout=seconds(1))",
        'workflow.execute_child_workflow("X", 1)',
        "asyncio.sleep(1)",
    ],
)
def test_a_call_without_words_is_seen(call: str) -> None:
    assert without_words(call)


def classes() -> Iterator[type]:
    for path in sorted(WORKFLOWS.glob("*.py")):
        module = importlib.import_module(f"workflows.{path.stem}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and value.__module__ == module.__name__
                and workflow._Definition.from_class(value)
            ):
                yield value


def handlers(of: type) -> dict[str, str | None]:
    """Every query, signal and update of a workflow class with its description."""
    definition = workflow._Definition.must_from_class(of)
    every = (*definition.queries.values(), *definition.signals.values(), *definition.updates.values())
    return {one.name or "(dynamic)": one.description for one in every}


def test_every_handler_of_every_workflow_says_what_it_does() -> None:
    assert len([*classes()]) >= 3
    silent = {of.__name__: [name for name, words in handlers(of).items() if not words] for of in classes()}
    assert not any(silent.values()), f"give description=: {silent}"


@workflow.defn
class Silent:
    """A workflow whose handler says nothing."""

    @workflow.run
    async def run(self) -> None: ...

    @workflow.query
    def status(self) -> str:
        return ""


def test_a_handler_without_a_description_is_seen() -> None:
    assert handlers(Silent) == {"status": None}


# On a real server: what the UI asks for


async def metadata(handle: WorkflowHandle[object, object]) -> WorkflowMetadata:
    """What the UI asks a running workflow for: its handlers with their descriptions, its current details."""
    found: WorkflowMetadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return found


def described(found: WorkflowMetadata, of: type) -> dict[str, str]:
    """The handlers that the server knows of; those that the SDK adds are its own matter."""
    definition = found.definition
    every = (*definition.query_definitions, *definition.signal_definitions, *definition.update_definitions)
    shown = {one.name: one.description for one in every if not one.name.startswith("__")}
    assert shown.keys() == handlers(of).keys()
    return shown


async def silent_events(handle: WorkflowHandle[object, object]) -> tuple[int, list[str]]:
    """How many rows of the timeline have a summary, and those that have none."""
    spoken, silent = 0, []
    async for event in handle.fetch_history_events():
        if event.event_type not in SHOWN:
            continue
        if event.user_metadata.summary.data.strip(b'"'):
            spoken += 1
        else:
            silent.append(f"{event.event_id} {EventType.Name(event.event_type)}")
    return spoken, silent


async def test_a_running_sandbox_is_described_and_so_is_its_history(world: World, client: Client) -> None:
    handle = await start(client, SandboxSpec(environment=ENVIRONMENT, owner="team-shop"))
    await handle.execute_update("run", TASK)
    await handle.execute_update("wait", 1)
    await handle.execute_update("extend", 7200)
    await handle.execute_update("attach", "A" * 43 + "=")
    found = await metadata(handle)
    assert all(described(found, Sandbox).values())
    for words in ("| state | **ready**", "| host | ", "| policy | deny-all `sha256:", "| lease ends | 20"):
        assert words in found.current_details.replace("\u00a0", "")
    world.unproved = 1  # the end looks again: a timer of its own
    await handle.execute_update("stop", "looked at", result_type=SandboxReport)
    await handle.result()
    spoken, silent = await silent_events(handle)
    assert not silent
    assert spoken >= 12


async def test_a_running_host_is_described_and_so_is_its_history(client: Client) -> None:
    spec = hosts.HostSpec(environment="described", host="far-1", slots=2)
    held = HostActivities(_nothing, ())
    control = Worker(client, task_queue=names.CONTROL_QUEUE, workflows=[Host])
    ctl = Worker(
        client,
        task_queue=names.host_control_queue(spec.environment, spec.host),
        activities=[held.hold_host, held.check_host],
    )
    async with control, ctl:
        handle = await client.start_workflow(
            names.HOST,
            spec,
            id=names.host_workflow_id(spec.environment, spec.host),
            task_queue=names.CONTROL_QUEUE,
            start_signal="joined",
            start_signal_args=[spec],
            result_type=HostReport,
        )
        async with asyncio.timeout(30):
            while "**ready**" not in (found := await metadata(handle)).current_details:
                await asyncio.sleep(0.05)
        assert all(described(found, Host).values())
        await handle.signal("leave")
        assert (await handle.result()).state == "gone"
    spoken, silent = await silent_events(handle)
    assert not silent
    assert spoken >= 1


async def _nothing() -> tuple[hosts.SandboxRef, ...]:
    return ()
