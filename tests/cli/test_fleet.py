"""`paddock fleet cleanup`: what a person reads, and what its exit code says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from paddock.cli.fleet import _code_of_error, _show, _Watcher, code_of
from paddock.client.fleet import SweepGoingOn
from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.fleet import Action, CleanupProgress, CleanupReport, Hold, Kind, Row
from paddock.contracts.report import Gone, Receipt
from tests.cli.conftest import Program

SANDBOX = "sb-" + "a" * 20


def row(action: Action, **change: Any) -> Row:
    made: dict[str, Any] = {
        "kind": Kind.SANDBOX,
        "id": SANDBOX,
        "host": "h1",
        "action": action,
        "why": "its workflow is terminated",
        "age_s": 3700.0,
        "holds": (Hold.RECORD, Hold.SLOT),
    }
    return Row(**{**made, **change})


def report(*rows: Row, **change: Any) -> CleanupReport:
    counts = {action: sum(one.action is action for one in rows) for action in {one.action for one in rows}}
    return CleanupReport(**{"environment": "local", "hosts": 1, "known": 3, "rows": rows, "counts": counts, **change})


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (report(), 0),
        (report(row(Action.FREED), row(Action.SPARED), row(Action.TOLD)), 0),
        (report(row(Action.FAILED)), 1),
        (report(row(Action.FINDING)), 1),
        (report(row(Action.WOULD_FREE), dry_run=True), 1),
        (report(row(Action.SPARED), asks="4 of 4 known sandboxes would be lost"), 1),
        (report(incomplete=("host h2 did not answer",)), 3),
        (report(row(Action.FAILED), incomplete=("host h2 did not answer",)), 1),
    ],
)
def test_the_exit_code_says_whether_a_person_is_needed(found: CleanupReport, code: int) -> None:
    assert code_of(found) == code


def test_a_sweep_that_goes_on_already_cannot_tell() -> None:
    info = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message="a sweep of this environment is going on already")
    assert _code_of_error(SweepGoingOn(info)) == 3
    assert _code_of_error(PaddockError(ErrorKind.UNREACHABLE, "nobody")) == 3
    assert _code_of_error(PaddockError(ErrorKind.BAD_SPEC, "no")) == 2


def test_the_table_says_what_was_done_why_and_what_is_proved(capsys: pytest.CaptureFixture[str]) -> None:
    def receipt(resource: str, gone: Gone) -> Receipt:
        return Receipt(resource=resource, id="x", gone=gone, checked_by="looked", at=datetime.now(UTC))

    freed = row(Action.FREED, receipts=(receipt("vm", Gone.PROVED), receipt("slot", Gone.PROVED)))
    failed = row(Action.FAILED, receipts=(receipt("rundir", Gone.UNPROVED),))
    _show(report(failed, freed, asks="look at them", incomplete=("host h2 did not answer",), more=7))
    said = capsys.readouterr().out
    assert f"freed\tsandbox\t{SANDBOX}\th1\trecord, slot\t1h\tits workflow is terminated" in said
    assert f"{SANDBOX}: proved gone: vm, slot" in said
    assert f"{SANDBOX}: not proved gone: rundir x: looked" in said
    assert "and 7 more" in said
    assert "local: 1 f" in said
    assert "not complete: host h2 did not answer" in said
    assert "a person must decide: look at them" in said


def test_an_empty_report_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show(report(dry_run=True))
    assert capsys.readouterr().out == ("local: nothing found; 1 host, 3 sandboxes known (dry run: nothing was freed)\n")


def test_what_machines_cost_is_said_for_each_and_in_sum_with_the_day_of_the_prices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    day = datetime(2026, 11, 1, tzinfo=UTC)
    machine = row(
        Action.FREED, kind=Kind.MACHINE, id="i-1", why="no Host", cost_per_hour=0.4, currency="USD", price_as_of=day
    )
    sums = {"saves_per_hour": {"USD": 0.4, "EUR": 1.25}, "price_as_of": day}
    _show(report(machine, machines=2, strange=1, **sums))
    said = capsys.readouterr().out
    assert "no Host (0.4000 USD an hour by prices of 2026-11-01)" in said
    assert "3 sandboxes known, machines known: 2, things not surely ours: 1\n" in said
    assert "this saves 1.2500 EUR and 0.4000 USD an hour by prices of 2026-11-01\n" in said
    _show(report(dry_run=True, saves_per_hour={"USD": 0.4}))
    assert "this would save 0.4000 USD an hour\n" in capsys.readouterr().out


def test_waiting_is_said_once_with_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    watch = _Watcher()
    waits = CleanupProgress(stage="waiting for the second look", suspects=2, wakes_at=datetime.now(UTC))
    for now in (CleanupProgress(stage="looking"), waits, waits, CleanupProgress(stage="done")):
        watch(now)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "paddock: looking"
    assert said[1].startswith("paddock: 2 suspect: the second look is at ")
    assert len(said) == 2


async def test_wrong_use_and_nothing_running_are_told_apart(alone: Program) -> None:
    wrong = await alone("fleet", "cleanup", "--grace", "soon")
    assert wrong.code == 2
    assert "10m" in wrong.err or "15m" in wrong.err
    short = await alone("fleet", "cleanup", "--grace", "0")
    assert short.code == 2
    assert "grace_s" in short.err
    nobody = await alone("fleet", "cleanup")
    assert nobody.code == 3
    assert "paddock up" in nobody.err
