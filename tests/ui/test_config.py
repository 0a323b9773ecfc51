"""The configuration that we ship for a cluster's UI: every switch is one that the UI knows, and buttons are gone."""

import json
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, Route, expect

from tests.e2e.conftest import Up
from tests.ui.pages import TemporalUi

pytestmark = pytest.mark.vm

CONFIG = Path(__file__).resolve().parents[2] / "infra" / "temporal" / "ui-config.yaml"
# Of the UI server only, not told to the page.
SERVER_ONLY = {"enableUi"}
DANGEROUS = ("Terminate", "Reset", "Pause", "Send a Signal")


def settings() -> dict[str, object]:
    """The shipped file as the UI server hands it to the page."""
    shipped: dict[str, object] = yaml.safe_load(CONFIG.read_text())
    return {name[0].upper() + name[1:]: value for name, value in shipped.items() if name not in SERVER_ONLY}


def test_the_ui_knows_every_switch_of_the_file(page: Page, up: Up) -> None:
    known = page.request.get(f"{up.info['ui']}/api/v1/settings").json()
    assert not settings().keys() - known.keys(), "a switch is misspelt, or this UI has none of that name"


def test_with_the_shipped_switches_the_dangerous_buttons_are_gone(ui: TemporalUi, page: Page) -> None:
    def shipped(route: Route) -> None:
        told = route.fetch()
        route.fulfill(response=told, body=json.dumps({**told.json(), **settings()}))

    ui.start("sandbox/switches")
    ui.open("sandbox/switches")
    menu = page.get_by_role("menu").filter(visible=True)
    more = page.get_by_role("button", name="More Actions")
    more.click()
    expect(menu.get_by_role("menuitem", name="Send an Update")).to_be_visible()
    offered = menu.get_by_role("menuitem").all_inner_texts()
    assert {"Terminate", "Reset", "Send a Signal"} <= {*offered}, "without the switches they are there"
    page.route("**/api/v1/settings*", shipped)
    try:
        page.reload()
        more.click()
        expect(menu.get_by_role("menuitem", name="Send an Update")).to_be_enabled()
        for name in DANGEROUS:
            item = menu.get_by_role("menuitem", name=name)
            assert item.count() == 0 or item.is_disabled(), name
        expect(page.get_by_role("button", name="Request Cancellation")).to_be_enabled()
        assert ui.update("sandbox/switches", "stop", '"tried"') == ""
        ui.expect_status("Completed")
        for reset in page.get_by_role("button", name="Reset").all():
            expect(reset).to_be_disabled()
    finally:
        page.unroute("**/api/v1/settings*")
