"""A sandbox's whole life from the Temporal UI, as docs/ui.md tells it: start, follow, ask, search, stop."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Up
from tests.ui.conftest import Pictures
from tests.ui.pages import TemporalUi

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[2]
BOX = "sandbox/shop-42"
SPEC = {"owner": "team-shop", "lifetime_s": 1800}
TASK = {"argv": ["python3", "-c", "print(6 * 7)"]}


@pytest.fixture(scope="module")
def started() -> list[str]:
    """Workflow ids that this module started; what still runs is ended by `paddock up`'s own end."""
    return []


@pytest.fixture
def box(ui: TemporalUi, started: list[str]) -> str:
    """A ready sandbox, started from the UI by the first test that needs it."""
    if BOX not in started:
        ui.start(BOX, json.dumps(SPEC))
        started.append(BOX)
        ui.until(BOX, "ready")
    return BOX


# Start


@pytest.mark.parametrize(("name", "text"), [("empty", ""), ("braces", "{}")])
def test_an_empty_box_and_empty_braces_start_a_working_sandbox(ui: TemporalUi, name: str, text: str) -> None:
    workflow = f"sandbox/{name}"
    ui.start(workflow, text)
    assert ui.until(workflow, "ready")["policy"] == "deny-all"
    assert ui.update(workflow, "run", json.dumps(TASK)) == ""
    ui.until(workflow, "ready")
    assert ui.update(workflow, "stop", '"tried"') == ""
    ui.open(workflow)
    ui.expect_status("Completed")
    assert ui.result()["task"]["exit"] == 0


def test_the_form_starts_a_sandbox_with_an_owner(ui: TemporalUi, started: list[str], pictures: Pictures) -> None:
    ui.fill(BOX, json.dumps(SPEC))
    pictures.take(ui.page, "start", 990)
    ui.press_start(BOX)
    started.append(BOX)
    assert ui.until(BOX, "ready")["owner"] == "team-shop"


def test_a_bad_field_fails_the_run_at_once_with_the_validators_words(ui: TemporalUi, pictures: Pictures) -> None:
    ui.start("sandbox/mistyped", '{"ownr": "team-shop", "lifetime_s": 1}')
    ui.open("sandbox/mistyped")
    ui.expect_status("Failed")
    shown = ui.page.get_by_test_id("input-and-result")
    expect(shown).to_contain_text("2 validation errors for SandboxSpec")
    expect(shown).to_contain_text("Input should be greater than or equal to 30")
    expect(shown).to_contain_text("Extra inputs are not permitted")
    trace = shown.locator(".cm-line").filter(has_text="stackTrace").bounding_box()
    assert trace
    pictures.take(ui.page, "refused", int(trace["y"]))  # the trace names places on this machine


# Follow


def test_the_details_say_state_host_policy_and_lease(ui: TemporalUi, box: str, pictures: Pictures) -> None:
    status = ui.query(box, "status")
    table = ui.details(box)
    for row, value in (
        ("state", "ready"),
        ("host", "local-1"),
        ("policy", f"deny-all {status['policy_digest'][:19]}"),
        ("lease ends", status["lease_end"][:16]),
    ):
        cells = table.get_by_role("row").filter(has_text=row).first
        expect(cells).to_contain_text(value)
    pictures.take(ui.page, "details", 700)


def test_the_details_lead_to_the_hosts_own_page(ui: TemporalUi, box: str) -> None:
    with ui.page.context.expect_page() as opened:
        ui.details(box).get_by_role("link", name="host", exact=True).click()
    expect(opened.value.get_by_role("heading", level=1)).to_contain_text("host/local/local-1")
    expect(opened.value.get_by_role("main").get_by_role("button", name=re.compile("hold_host • \\w+"))).to_be_visible()
    opened.value.close()


def test_the_timeline_says_what_each_step_and_timer_is(ui: TemporalUi, box: str) -> None:
    ui.open(box)
    for activity in ("reserve_slot", "boot_sandbox", "attach_policy"):
        # The name alone would be an activity without a summary.
        row = ui.page.get_by_role("main").get_by_role("button", name=re.compile(f"^{activity} • \\w+"))
        expect(row.first).to_be_visible()
    for timer in ("lease", "idle"):
        expect(ui.timeline_row(timer)).to_be_visible()


# Ask


def test_each_update_says_what_it_does(ui: TemporalUi, box: str, pictures: Pictures) -> None:
    dialog = ui.choose_update(box)
    options = dialog.get_by_role("option")
    for name in ("attach", "extend", "run", "stop", "wait"):
        option = options.filter(has=ui.page.get_by_text(name, exact=True))
        expect(option).to_have_text(re.compile(rf"^\s*{name}\s*\S+ \S+"))
    pictures.take(ui.page, "update", 700)


def test_the_update_run_runs_a_task_and_wait_answers_how_it_ended(ui: TemporalUi, box: str, pictures: Pictures) -> None:
    assert ui.update(box, "run", json.dumps(TASK)) == ""
    assert ui.update(box, "wait", "1") == ""
    ui.until(box, "ready")  # the dialog of `wait` is closed after 20 s in any case
    ui.open(box)
    expect(ui.timeline_row("run_task • python3")).to_be_visible()
    pictures.take(ui.page, "timeline", 960)
    ui.open(box, "history-tab")
    done = ui.page.get_by_role("row").filter(has_text="Workflow Execution Update Completed").first
    expect(done).to_contain_text('"exit":0')


def test_an_update_that_is_refused_says_why_and_changes_nothing(ui: TemporalUi, box: str) -> None:
    before = ui.query(box, "status")
    assert "29 is outside 30 to" in ui.update(box, "extend", "29")
    assert ui.query(box, "status") == before


def test_the_update_extend_moves_the_lease(ui: TemporalUi, box: str) -> None:
    before = ui.query(box, "status")["lease_end"]
    assert ui.update(box, "extend", "7200") == ""
    after = ui.query(box, "status")["lease_end"]
    assert after > before
    expect(ui.details(box).get_by_role("row").filter(has_text="lease ends")).to_contain_text(after[:16])


def test_the_queries_answer_while_it_runs(ui: TemporalUi, box: str, pictures: Pictures) -> None:
    assert ui.query(box, "receipts") == []
    status = ui.query(box, "status")
    assert (status["state"], status["host"], status["owner"]) == ("ready", "local-1", "team-shop")
    pictures.take(ui.page, "query", 720)


# Search


def test_a_sandbox_is_found_by_its_search_attributes(ui: TemporalUi, box: str, pictures: Pictures) -> None:
    shown = ui.search_attributes(box)
    assert (shown["PaddockState"], shown["PaddockHost"]) == ("ready", "local-1")
    assert (shown["PaddockOwner"], shown["PaddockPolicy"]) == ("team-shop", "deny-all")
    assert shown["PaddockEnvironment"] == "local"
    assert shown["PaddockLeaseEnd"]
    for query in ('PaddockState="ready"', 'PaddockOwner="team-shop"', 'PaddockHost="local-1"'):
        ui.search(query)
        expect(ui.row(box)).to_be_visible()
    ui.search('PaddockState="ready" AND PaddockOwner="team-shop"')
    expect(ui.row(box)).to_be_visible()
    ui.page.get_by_role("button", name="Collapse saved views").click()
    pictures.take(ui.page, "search", 420)
    ui.page.get_by_role("button", name="Expand saved views").click()
    ui.search('PaddockState="ready" AND PaddockOwner="another"')
    expect(ui.page.get_by_test_id("workflow-count")).to_have_text("0")


def test_the_server_takes_every_query_of_the_manual(ui: TemporalUi, up: Up) -> None:
    manual = (ROOT / "docs" / "ui.md").read_text()
    queries = [
        line for block in re.findall(r"```sql\n(.*?)```", manual, re.DOTALL) for line in block.splitlines() if line
    ]
    assert len(queries) >= 5
    for query in queries:
        url = f"{up.info['ui']}/api/v1/namespaces/default/workflows"
        answer = ui.page.request.get(url, params={"query": query})
        assert answer.ok, f"{query}: {answer.text()}"


# Stop


def test_stop_ends_it_and_the_page_shows_the_report(
    ui: TemporalUi, box: str, started: list[str], pictures: Pictures
) -> None:
    assert "say why" in ui.update(box, "stop", '""')
    assert ui.update(box, "stop", '"the work is done"') == ""
    started.remove(box)
    ui.open(box)
    ui.expect_status("Completed")
    expect(ui.page.get_by_test_id("input-and-result")).to_contain_text('"outcome": "stopped"')
    pictures.take(ui.page, "report", 720)
    report = ui.result()
    assert (report["outcome"], report["reason"], report["audit"]["verified"]) == ("stopped", "the work is done", True)
    assert {one["gone"] for one in report["receipts"]} == {"proved"}
    assert {"slot", "vm", "supervisor", "credential"} <= {one["resource"] for one in report["receipts"]}
    assert ui.query(box, "receipts") == report["receipts"]
    ui.search('PaddockState="ready"')
    expect(ui.row(box)).not_to_be_visible()
