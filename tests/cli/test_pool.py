"""`paddock pool` on a real server and a played cloud: what people and programs read, and what is refused."""

import asyncio
import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from paddock.cli.app import app
from paddock.client import pool as pool_module
from paddock.contracts import names
from paddock.contracts.ground import Choice
from paddock.contracts.pool import PoolSize, PoolSpec, PoolStatus
from providers.contract import ErrorClass, ProviderError
from tests.cli.conftest import Ended, until
from tests.workflows.conftest import client
from tests.workflows.grounds import Ground
from tests.workflows.pools import ground, looks, quick, serving, status_when

__all__ = ["client", "ground", "quick"]

WRONG_NAMES = ("nowhere", "", "No", "a/b", "-x", 'x" OR WorkflowId != "', "a\nb", "x" * 100, "\udcff")


async def said(ground: Ground, group: str, command: str, *argv: str) -> Ended:
    """The program in this process, on the ground's server."""
    whole = [group, command, "--address", ground.address, *argv]
    ended = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, whole), 60)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def lines(ended: Ended) -> list[dict[str, object]]:
    """Its answer for programs: one JSON document a line, and nothing else."""
    assert (ended.code, ended.err) == (0, "")
    return [json.loads(line) for line in ended.out.splitlines()]


async def size(ground: Ground) -> PoolSize:
    handle = ground.client.get_workflow_handle(names.pool_workflow_id(ground.environment))
    return (await handle.query("status", result_type=PoolStatus)).size


# ls, show


async def test_every_open_pool_is_listed_with_its_hosts_its_slots_and_what_it_did(ground: Ground) -> None:
    pool = await ground.pool("small", minimum=1, maximum=3, idle_s=600)
    await serving(pool, 1)

    async def listed() -> bool:
        return f"{ground.environment}\t1 of 1..3\t2\t0\t0\t" in (await said(ground, "pool", "ls")).out

    await until(listed)
    [title, row] = (await said(ground, "pool", "ls")).out.splitlines()
    assert title == "environment\thosts\tfree\tcoming\twaiting\tdid\tfinding"
    assert row.split("\t")[5] == (await pool.query("status", result_type=PoolStatus)).did != ""
    [one] = lines(await said(ground, "pool", "ls", "--json"))
    assert one.keys() == PoolStatus.model_fields.keys()
    assert PoolStatus.model_validate(one).environment == ground.environment


async def test_show_names_each_host_and_says_which_choice_is_left_alone_and_why(ground: Ground) -> None:
    full = ProviderError(ErrorClass.CAPACITY, "none left", code="InsufficientCapacity")
    ground.cloud.refuse["small"] = [full]
    pool = await ground.pool("small", "large", minimum=1, maximum=3, idle_s=600)
    [host] = (await serving(pool, 1)).hosts
    shown = await said(ground, "pool", "show", ground.environment)
    assert (shown.code, shown.err) == (0, "")
    assert "\nfree slots\t2, 0 coming\n" in shown.out
    assert f"\n{host.host}\tready\t2\t0\tthe pool\t" in shown.out
    assert "\nsmall zone-a\t" in shown.out
    assert shown.out.splitlines()[-1].endswith("\tcapacity")
    told = lines(await said(ground, "pool", "show", ground.environment, "--json"))
    assert told[0].keys() == PoolStatus.model_fields.keys()
    [avoided] = PoolStatus.model_validate(told[0]).avoided
    assert avoided.choice == Choice(size="small", zone="zone-a")


async def test_where_no_pool_is_nothing_is_listed(ground: Ground) -> None:
    async def nothing() -> bool:
        return (await said(ground, "pool", "ls", "--json")).out == ""

    await until(nothing)
    assert (await said(ground, "pool", "ls")).code == 0


async def test_a_pool_that_does_not_answer_hides_no_other(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "QUICKLY", timedelta(seconds=1))
    await looks(await ground.pool("small"), 0)
    silent = f"{ground.environment}-silent"
    spec = PoolSpec(environment=silent, choices=(Choice(size="small"),))
    handle = await ground.client.start_workflow(
        names.HOST_POOL, spec, id=names.pool_workflow_id(silent), task_queue=f"nobody-{silent}"
    )
    try:

        async def both() -> bool:
            return len((await said(ground, "pool", "ls")).out.splitlines()) == 3

        await until(both, 30)
        ended = await said(ground, "pool", "ls")
        assert ended.code == 3
        assert f"\n{ground.environment}\t0 of 0..1\t" in ended.out
        assert f"\n{silent}\t?\t?\t?\t?\t\t" in ended.out
        told = await said(ground, "pool", "ls", "--json")
        first, second = (json.loads(line) for line in told.out.splitlines())
        assert (told.code, first["environment"], second["environment"]) == (3, ground.environment, silent)
        assert second["error"]["kind"] == "unreachable"
        assert (await said(ground, "pool", "show", silent)).code == 3
    finally:
        await handle.terminate()


# set


async def test_set_changes_what_is_named_and_nothing_else_and_the_pool_follows(ground: Ground) -> None:
    pool = await ground.pool("small", maximum=2, free_slots=0, idle_s=700, drain_wait_s=77)
    await looks(pool, 0)
    told = await said(ground, "pool", "set", ground.environment, "--minimum", "2", "--idle", "2m", "--json")
    [answer] = lines(told)
    assert answer.keys() == PoolStatus.model_fields.keys()
    wanted = PoolSize(minimum=2, maximum=2, free_slots=0, idle_s=120, drain_wait_s=77)
    assert PoolStatus.model_validate(answer).size == await size(ground) == wanted
    await serving(pool, 2)
    ended = await said(ground, "pool", "set", ground.environment, "--minimum", "0", "--maximum", "1")
    assert ended.code == 0
    assert f"{ground.environment}: 0 to 1 hosts, 0 slots kept free" in ended.out
    assert "2 hosts are there" in ended.err
    more = ("--free-slots", "3", "--drain-wait", "1h", "--maximum", "4")
    assert (await said(ground, "pool", "set", ground.environment, *more)).code == 0
    assert await size(ground) == PoolSize(minimum=0, maximum=4, free_slots=3, idle_s=120, drain_wait_s=3600)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minimum", "9"), "minimum 9 is more than maximum 3"),
        (("--maximum", "-1"), "greater than or equal to 0 (maximum)"),
        (("--maximum", "100000"), "less than or equal to 10000 (maximum)"),
        (("--idle", "0"), "greater than or equal to 1 (idle_s)"),
        (("--drain-wait", "999d"), "less than or equal to 2592000 (drain_wait_s)"),
        (("--idle", "soon"), "--idle: 'soon': a number of seconds"),
        (("--minimum", "two"), "unable to parse string as an integer"),
        ((), "name what to change"),
    ],
)
async def test_a_size_that_cannot_be_is_wrong_use_in_words_and_changes_nothing(
    ground: Ground, options: tuple[str, ...], words: str
) -> None:
    pool = await ground.pool("small", minimum=0, maximum=3)
    await status_when(pool, lambda status: True)
    before = await size(ground)
    ended = await said(ground, "pool", "set", ground.environment, *options)
    assert ended.code == 2
    assert words in " ".join(ended.err.replace("│", " ").split())
    assert await size(ground) == before


async def test_an_error_is_one_line_for_programs_too(ground: Ground) -> None:
    await status_when(await ground.pool("small"), lambda status: True)
    ended = await said(ground, "pool", "set", ground.environment, "--minimum", "9", "--json")
    assert ended.code == 2
    error = json.loads(ended.out)["error"]
    assert (error["kind"], error["message"]) == ("bad-spec", "Value error, minimum 9 is more than maximum 1")


# Pools that are not there


@pytest.mark.parametrize("name", WRONG_NAMES)
async def test_an_unknown_pool_is_said_with_what_to_do(ground: Ground, name: str) -> None:
    shown = await said(ground, "pool", "show", "--", name)
    assert shown.code == 2
    assert "there is no pool of" in shown.err
    assert "[pool]" in shown.err
    assert "paddock pool ls" in shown.err


async def test_set_of_an_unknown_pool_is_wrong_use(ground: Ground) -> None:
    ended = await said(ground, "pool", "set", "nowhere", "--maximum", "2", "--json")
    assert ended.code == 2
    assert json.loads(ended.out)["error"]["kind"] == "not-found"


async def test_a_pool_that_was_closed_or_failed_says_so(ground: Ground) -> None:
    pool = await ground.pool("small")
    await pool.signal("close")
    await asyncio.wait_for(pool.result(), 20)
    for command in (("show",), ("set", "--maximum", "2")):
        ended = await said(ground, "pool", command[0], ground.environment, *command[1:])
        assert ended.code == 2
        assert f"the pool of {ground.environment} was closed" in ended.err
    failed = await ground.client.start_workflow(
        names.HOST_POOL,
        {"environment": ground.environment, "choices": []},
        id=names.pool_workflow_id(ground.environment),
        task_queue=names.CONTROL_QUEUE,
    )
    with pytest.raises(Exception, match="Workflow execution failed"):
        await asyncio.wait_for(failed.result(), 20)
    ended = await said(ground, "pool", "show", ground.environment)
    assert ended.code == 2
    assert f"the pool of {ground.environment} has ended: " in ended.err
    assert "choices" in ended.err
