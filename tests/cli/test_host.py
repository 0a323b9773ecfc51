"""`paddock host` on a real server and a played cloud: hosts that are made, that joined, that fail, and that end."""

import asyncio
import json
import signal
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowHandle

from paddock.client.hosts import HostInfo
from paddock.contracts import names
from paddock.contracts.ground import HostReport
from paddock.contracts.hosts import HostSpec
from paddock.contracts.report import Outcome
from providers.contract import ErrorClass, HostOrder, ProviderError
from tests.cli.conftest import Ended, Program, alone, until
from tests.cli.test_pool import WRONG_NAMES, lines, said
from tests.workflows.conftest import client
from tests.workflows.grounds import Ground
from tests.workflows.pools import ground, quick, serving, where

__all__ = ["alone", "client", "ground", "quick"]

COLUMNS = {field.name for field in fields(HostInfo)}
Handle = WorkflowHandle[object, HostReport]


async def until_said(ground: Ground, words: str, *argv: str) -> Ended:
    """The program's answer once it has these words: Temporal's index is a moment late."""
    found: list[Ended] = []

    async def so() -> bool:
        found.append(await said(ground, *argv))  # type: ignore[arg-type]
        return words in found[-1].out

    await until(so)
    return found[-1]


async def joined(ground: Ground, host: str = "j-1") -> Handle:
    """A machine that joined: its workers run in this process until the ground is closed."""
    order = HostOrder(
        controller="nobody", environment=ground.environment, host=host, attempt=0, size="own", zone="",
        deadline=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    ground._boot(order)
    handle = workflow(ground, host)

    async def there() -> bool:
        try:
            return bool(await handle.query("status") == "ready")
        except Exception:
            return False

    await until(there)
    return handle


def workflow(ground: Ground, host: str) -> Handle:
    id_ = names.host_workflow_id(ground.environment, host)
    return ground.client.get_workflow_handle(id_, result_type=HostReport)


async def gone(handle: Handle) -> HostReport:
    return await asyncio.wait_for(handle.result(), 30)


# Made, drained, gone


async def test_a_made_host_is_listed_shown_drained_to_its_receipts_and_remembered(ground: Ground) -> None:
    await ground.until(await ground.order("small"), "ready")
    box = await ground.sandbox()
    assert await where(box) == "h-1"
    environment = ground.environment
    ls = ("host", "ls", "--environment", environment)
    listed = await until_said(ground, f"h-1\t{environment}\tready\t2\t1\t", *ls)
    assert listed.out.splitlines()[0] == "host\tenvironment\tstate\tslots\tused\tsince"
    [row] = lines(await said(ground, *ls, "--json"))
    assert row.keys() == COLUMNS
    assert (row["state"], row["slots"], row["used"], row["by_pool"], row["ended"]) == ("ready", 2, 1, False, None)
    shown = await said(ground, "host", "show", environment, "h-1")
    assert "\nmachine\tmade by Paddock\n" in shown.out
    assert "\nslots\t2, 1 used\n" in shown.out
    [status] = lines(await said(ground, "host", "show", environment, "h-1", "--json"))
    assert status.keys() == COLUMNS | {"made"}
    assert (status["state"], status["used"], status["made"]) == ("ready", 1, True)

    drained = await said(ground, "host", "drain", environment, "h-1", "--wait", "0", "--reason", "too old", "--follow")
    assert drained.code == 0
    assert ground.cloud.held == {}, "gone means that nothing is billed"
    assert (await box.result()).outcome is Outcome.STOPPED
    assert f"{environment}/h-1: gone: too old\n" in drained.out
    assert "attempt 1: small zone-a\n" in drained.out
    assert "create " in drained.out
    assert [line.split("\t")[2] for line in drained.out.splitlines() if line.startswith("host\t")] == ["proved"]
    assert "paddock: h-1: gone" in drained.err
    assert "the machine itself stays" not in drained.err

    [report] = lines(await said(ground, "host", "show", environment, "h-1", "--json"))
    assert report.keys() == HostReport.model_fields.keys()
    assert HostReport.model_validate(report) == await gone(workflow(ground, "h-1"))
    assert (await until_said(ground, "h-1\t", *ls, "--all")).out.splitlines()[1].split("\t")[2] == "gone"
    [ended] = lines(await said(ground, *ls, "--all", "--json"))
    assert (ended["state"], ended["ended"] is None) == ("gone", False)
    assert lines(await said(ground, *ls, "--json")) == []


async def test_a_report_says_which_attempts_failed_and_why_with_their_receipts(ground: Ground) -> None:
    ground.unproved.add("bad")
    ground.cloud.refuse["full"] = [ProviderError(ErrorClass.CAPACITY, "none left", code="x")]
    host = await ground.order("full", "bad", "good")
    await ground.until(host, "ready")
    assert (await said(ground, "host", "drain", ground.environment, "h-1", "--wait", "0s", "--json")).code == 0
    report = await gone(host)
    shown = await said(ground, "host", "show", ground.environment, "h-1")
    assert "\n1\tfull zone-a\tcreate\tcapacity\t" in shown.out
    assert "\n2\tbad zone-a\tprove\tno-proof\tthe guest did not boot\n" in shown.out
    assert "attempt 3: good zone-a\n" in shown.out
    assert report.grown
    every = [*report.receipts, *(one for tried in report.grown.tried for one in tried.receipts)]
    assert shown.out.count("\tproved\t") == len(every) > len(report.receipts)


async def test_a_host_that_came_to_nothing_has_its_report_too(ground: Ground) -> None:
    ground.unproved.add("bad")
    host = await ground.order("bad")
    with pytest.raises(Exception, match="Workflow execution failed"):
        await gone(host)
    shown = await said(ground, "host", "show", ground.environment, "h-1")
    assert shown.code == 0
    assert "\n1\tbad zone-a\tprove\tno-proof\tthe guest did not boot\n" in shown.out
    assert "\tproved\t" in shown.out
    [report] = lines(await said(ground, "host", "show", ground.environment, "h-1", "--json"))
    assert HostReport.model_validate(report).grown
    await until_said(ground, f"h-1\t{ground.environment}\tfailed\t2\t\t", "host", "ls", "--all")
    late = await said(ground, "host", "drain", ground.environment, "h-1")
    assert late.code == 2
    assert f"host h-1 of {ground.environment} has ended: failed" in late.err
    assert f"paddock host show {ground.environment} h-1" in late.err


async def test_a_host_of_a_pool_says_so(ground: Ground) -> None:
    [host] = (await serving(await ground.pool("small", minimum=1), 1)).hosts
    shown = await said(ground, "host", "show", ground.environment, host.host)
    assert f"\nmachine\tmade by Paddock, by the pool of {ground.environment}\n" in shown.out
    [row] = lines(await until_said(ground, host.host, "host", "ls", "--environment", ground.environment, "--json"))
    assert row["by_pool"] is True


async def test_a_second_drain_says_that_the_first_one_counts(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    box = await ground.sandbox()
    await where(box)
    first = await said(ground, "host", "drain", ground.environment, "h-1", "--reason", "one", "--wait", "2h", "--json")
    assert lines(first)[0]["drain"] == {"wait_s": 7200, "reason": "one"}
    await ground.until(host, "draining")
    second = await said(ground, "host", "drain", ground.environment, "h-1", "--reason", "two", "--wait", "0", "--json")
    assert "it drains already: the first drain's time and reason count" in second.err
    assert json.loads(second.out)["drain"] is None
    assert (await box.query("status"))["state"] == "ready"
    await box.execute_update("stop", "enough")
    assert (await gone(host)).why == "one"


async def test_who_leaves_a_drain_that_it_follows_leaves_it_going_on(ground: Ground, alone: Program) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    box = await ground.sandbox()
    await where(box)
    drain = ("host", "drain", ground.environment, "h-1", "--follow", "--address", ground.address)
    process = await alone.start(*drain)
    assert process.stderr
    said = await asyncio.wait_for(process.stderr.readline(), 30)
    assert said == b"paddock: h-1: draining, sandboxes: 1\n"
    process.send_signal(signal.SIGINT)
    assert (await alone.end(process)).code == 130
    assert await host.query("status") == "draining"
    await box.execute_update("stop", "enough")
    assert (await gone(host)).receipts


# Joined


async def test_a_joined_host_that_is_drained_is_gone_for_paddock_and_its_machine_stays(ground: Ground) -> None:
    await joined(ground)
    shown = await said(ground, "host", "show", ground.environment, "j-1")
    assert "\nmachine\tjoined\n" in shown.out
    drained = await said(ground, "host", "drain", ground.environment, "j-1", "--wait", "0", "--follow")
    assert drained.code == 0
    assert "j-1: it joined; the machine itself stays" in drained.err
    assert "Paddock made nothing for it, and ended nothing" in drained.out
    assert ground.closed == {"j-1"}, "no new sandbox comes to it"
    [machine] = ground._machines.values()
    assert not machine.done()
    [report] = lines(await said(ground, "host", "show", ground.environment, "j-1", "--json"))
    assert (report["state"], report["grown"], report["receipts"]) == ("gone", None, [])


async def test_one_that_does_not_answer_is_told_and_that_is_said(ground: Ground) -> None:
    await ground.say_joined("j-2", 0)  # and nobody is there
    await ground.until(workflow(ground, "j-2"), "unreachable")
    drained = await said(ground, "host", "drain", ground.environment, "j-2")
    assert drained.code == 0
    assert "j-2: it does not answer: it drains once it does" in drained.err
    assert f"{ground.environment}/j-2: told to drain; sandboxes there: 0\n" in drained.out
    assert (await said(ground, "host", "show", ground.environment, "j-2")).out.count("unreachable") == 1


# What is not there, and what cannot be


@pytest.mark.parametrize("command", ["show", "drain"])
async def test_an_unknown_host_is_said_with_what_to_do(ground: Ground, command: str) -> None:
    for name in WRONG_NAMES:
        for environment, host in ((ground.environment, name), (name, "h-1")):
            ended = await said(ground, "host", command, "--", environment, host)
            assert ended.code == 2, (environment, host)
            assert "there is no host" in ended.err
            assert "paddock host ls --all" in ended.err


@pytest.mark.parametrize("name", [name for name in WRONG_NAMES if name != "nowhere"])
async def test_a_list_of_what_can_be_no_environment_is_wrong_use(ground: Ground, name: str) -> None:
    ended = await said(ground, "host", "ls", f"--environment={name}", "--json")
    assert ended.code == 2
    assert json.loads(ended.out)["error"]["field"] == "environment"


async def test_a_list_of_one_environment_has_no_host_of_another(ground: Ground) -> None:
    spec = HostSpec(environment=f"{ground.environment}-b", host="far")
    await ground.client.start_workflow(
        names.HOST, spec, id=names.host_workflow_id(spec.environment, "far"), task_queue=names.CONTROL_QUEUE
    )
    try:
        await ground.say_joined("near", 0)
        await until_said(ground, "far\t", "host", "ls")
        one = await until_said(ground, "near\t", "host", "ls", "--environment", ground.environment)
        assert "far\t" not in one.out
        limited = await said(ground, "host", "ls", "--limit", "1")
        assert len(limited.out.splitlines()) == 2
        assert "there may be more" in limited.err
    finally:
        await ground.client.get_workflow_handle(names.host_workflow_id(spec.environment, "far")).terminate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--wait", "soon"), "'soon': a number of seconds"),
        (("--wait", "31d"), "less than or equal to 2592000 (wait_s)"),
        (("--reason", "x" * 1001), "at most 1000 characters (reason)"),
    ],
)
async def test_a_drain_that_cannot_be_is_wrong_use_and_changes_nothing(
    ground: Ground, options: tuple[str, str], words: str
) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    ended = await said(ground, "host", "drain", ground.environment, "h-1", *options)
    assert ended.code == 2
    assert words in " ".join(ended.err.replace("│", " ").split())
    assert await host.query("status") == "ready"
    assert ground.closed == set()


async def test_one_that_was_terminated_has_no_report_and_the_sweep_is_named(ground: Ground) -> None:
    host = await ground.order("small")
    await ground.until(host, "ready")
    await host.terminate()
    shown = await said(ground, "host", "show", ground.environment, "h-1")
    assert shown.code == 1
    assert "its workflow was terminated" in shown.err
    assert f"paddock fleet cleanup --environment {ground.environment}" in shown.err
    await until_said(ground, f"h-1\t{ground.environment}\tterminated\t", "host", "ls", "--all")
