"""One `paddock up` and one browser for this folder; what a failed test saw is in its report."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import Up
from tests.ui import browser
from tests.ui.pages import TemporalUi

SHOTS = "PADDOCK_SHOTS"


class Pictures:
    """Pictures on the way: into docs/ui by `python -m tests.ui.shots`, else to a directory that goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, page: Page, name: str, high: int = browser.HIGH) -> None:
        """The window, `high` pixels high, as docs/ui/NAME.png; without the notices that come and go."""
        page.set_viewport_size({"width": browser.WIDE, "height": high})
        page.mouse.move(browser.WIDE / 2, 4)
        page.screenshot(path=self.folder / f"{name}.png", scale="css", style="[role=log] { visibility: hidden }")
        page.set_viewport_size({"width": browser.WIDE, "height": browser.HIGH})


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`paddock up` on a fresh state directory; not even started where there is no browser."""
    if not browser.find():
        pytest.skip(browser.NONE)
    here = Up(tmp_path_factory.mktemp("state")).start()
    yield here
    assert here.stop() == 0


@pytest.fixture(scope="package")
def page(up: Up) -> Iterator[Page]:
    """One tab for all: loading the UI anew takes longer than what is done in it."""
    path = browser.find()
    assert path
    with browser.chromium(path) as context:
        yield context.new_page()


@pytest.fixture
def ui(up: Up, page: Page, request: pytest.FixtureRequest) -> Iterator[TemporalUi]:
    yield TemporalUi(page, str(up.info["ui"]))
    call = request.node.stash.get(CALL, None)
    if call and call.failed:
        print(f"the page was {page.url}:\n{page.locator('body').aria_snapshot()}")


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(Path(os.environ[SHOTS]) if os.environ.get(SHOTS) else tmp_path_factory.mktemp("pictures"))


CALL = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[CALL] = report
    return report
