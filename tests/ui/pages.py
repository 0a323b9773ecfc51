"""The pages of the Temporal UI as a person uses them: roles, labels and the UI's own test ids, no positions."""

import json
import time
from typing import Any
from urllib.parse import quote

from playwright.sync_api import FrameLocator, Locator, Page, expect

from paddock.contracts.names import CONTROL_QUEUE, NAMESPACE, SANDBOX

PATIENCE_MS = 30_000
COPY = "Click to copy content"
OVER_OR_REFUSED = """() => !document.querySelector("dialog[open]")
    || document.querySelector("dialog[open] [role=alert] p")"""
expect.set_options(timeout=PATIENCE_MS)


class TemporalUi:
    """One tab of a browser on the Temporal UI at `base`."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, f"{base}/namespaces/{NAMESPACE}/workflows"

    # Starting

    def start_link(self, workflow_id: str) -> str:
        """The link of docs/ui.md: the start form with everything but the input filled in."""
        return (
            f"{self.base}/start-workflow?workflowType={SANDBOX}&taskQueue={CONTROL_QUEUE}"
            f"&workflowId={quote(workflow_id, safe='')}"
        )

    def fill(self, workflow_id: str, text: str) -> None:
        """Open the start form by the link and type `text` into its one box."""
        # The form loads the input of an earlier run of that id: until it has, it may overwrite what is typed.
        self.page.goto(self.start_link(workflow_id), wait_until="networkidle")
        expect(self.page.get_by_text("Task Queue is Active")).to_be_visible()
        if text:
            _type(self.page.get_by_role("main").locator(".cm-content").first, text)

    def start(self, workflow_id: str, text: str = "") -> None:
        self.fill(workflow_id, text)
        self.press_start(workflow_id)

    def press_start(self, workflow_id: str) -> None:
        button = self.page.get_by_role("main").get_by_role("button", name="Start Workflow")
        expect(button).to_be_enabled()
        button.click()
        said = self.page.get_by_role("log").locator(f'a[href*="/{quote(workflow_id, safe="")}/"]')
        expect(said).to_contain_text("Workflow started successfully")

    # Looking

    def open(self, workflow_id: str, tab: str = "timeline-tab") -> None:
        """The page of the newest run, by its tab's test id; loaded only when it is not there already."""
        self._close_dialog()
        here = f"{self.base}/{quote(workflow_id, safe='')}"
        if not self.page.url.startswith(f"{here}/"):
            self.page.goto(here)
            expect(self.page.get_by_role("heading", level=1)).to_contain_text(workflow_id)
        self.page.get_by_test_id(tab).click()

    def expect_status(self, words: str) -> None:
        expect(self.page.get_by_test_id("workflow-status").first).to_contain_text(words)

    def timeline_row(self, words: str) -> Locator:
        return self.page.get_by_role("main").get_by_role("button", name=words, exact=True).first

    def details(self, workflow_id: str) -> FrameLocator:
        """The table of current details, in its frame."""
        self.open(workflow_id, "user-metadata-tab")
        return self.page.frame_locator("iframe[title=output]")

    def search_attributes(self, workflow_id: str) -> dict[str, Any]:
        self.open(workflow_id, "search-attributes-tab")
        main = self.page.get_by_role("main")
        expect(main.locator(".cm-content").last).to_contain_text("PaddockState")
        shown: dict[str, Any] = json.loads(self._copied(main))
        return shown

    def result(self) -> dict[str, Any]:
        """The whole report of the ended run whose page is open."""
        shown = self.page.get_by_test_id("input-and-result")
        expect(shown.locator(".cm-content").last).to_contain_text("outcome")
        answer: dict[str, Any] = json.loads(self._copied(shown))
        return answer

    def search(self, query: str) -> None:
        self.page.goto(f"{self.base}?query={quote(query)}")
        expect(self.page.get_by_role("button", name="Start Workflow")).to_be_visible()

    def row(self, workflow_id: str) -> Locator:
        return self.page.get_by_role("table").get_by_role("link", name=workflow_id, exact=True)

    # Asking

    def query(self, workflow_id: str, name: str) -> Any:
        """Run a query on the Queries tab; the answer as the page shows it."""
        self.open(workflow_id, "memo-tab")  # coming back to the tab shows no older answer
        self.page.get_by_test_id("queries-tab").click()
        main = self.page.get_by_role("main")
        expect(main.get_by_text("Query Type")).to_be_visible()
        picker = main.get_by_role("button", name="receipts").or_(main.get_by_role("button", name="status")).first
        picker.click()
        main.get_by_role("option").filter(has=self.page.get_by_text(name, exact=True)).click()
        main.get_by_role("button", name="Run Query").click()
        shown = self.page.get_by_test_id("query-result")
        expect(shown.locator(".cm-content")).not_to_have_text("")
        return json.loads(self._copied(main))

    def until(self, workflow_id: str, state: str, within_s: float = 60) -> dict[str, Any]:
        """Ask for the status until the sandbox is where it should be."""
        ends = time.monotonic() + within_s
        while True:
            status: dict[str, Any] = self.query(workflow_id, "status")
            if status["state"] == state:
                return status
            assert time.monotonic() < ends, f"{workflow_id} is {status['state']}, not {state}, after {within_s} s"

    def choose_update(self, workflow_id: str) -> Locator:
        """The dialog "Send an Update" with its list of updates open."""
        self.open(workflow_id)
        self.page.get_by_role("button", name="More Actions").click()
        self.page.get_by_role("menuitem", name="Send an Update").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_test_id("update-select-button").click()
        return dialog

    def update(self, workflow_id: str, name: str, text: str) -> str:
        """Send an update; "" when it was done, else the words of the refusal."""
        dialog = self.choose_update(workflow_id)
        dialog.get_by_role("option").filter(has=self.page.get_by_text(name, exact=True)).click()
        _type(dialog.locator(".cm-content").first, text)
        dialog.get_by_test_id("confirm-modal-button").click()
        self.page.wait_for_function(OVER_OR_REFUSED)
        if not dialog.is_visible():
            return ""
        words = dialog.get_by_role("alert").get_by_role("paragraph").first.inner_text()
        self._close_dialog()
        return words

    def _close_dialog(self) -> None:
        dialog = self.page.get_by_role("dialog")
        if dialog.is_visible():
            dialog.get_by_role("button", name="Cancel").first.click()  # an open list may lie over the second one
            expect(dialog).not_to_be_visible()

    def _copied(self, around: Locator) -> str:
        """What the last copy button puts on the clipboard: an editor draws only the lines that are in sight."""
        self.page.evaluate("navigator.clipboard.writeText('')")
        around.get_by_role("button", name=COPY).last.click()
        self.page.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
        words: str = self.page.evaluate("navigator.clipboard.readText()")
        return words


def _type(editor: Locator, text: str) -> None:
    editor.click()
    editor.press("Control+A")
    editor.page.keyboard.insert_text(text)
    # It formats what was typed when it loses the focus, and what stands below moves: do that before the next click.
    editor.evaluate("editor => editor.blur()")
    want = "".join(text.split())
    editor.page.wait_for_function(
        "([editor, want]) => editor.innerText.replace(/\\s/g, '') === want", arg=[editor.element_handle(), want]
    )
