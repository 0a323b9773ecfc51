"""A headless Chromium of this machine's own, driven by Playwright; words where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
NONE = "no Chromium for the Temporal UI (as root: bash packaging/browser.sh)"
WIDE, HIGH = 1280, 800


def find() -> str | None:
    """The browser's path: never one that Playwright downloaded, so that a test run fetches nothing."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(path: str) -> Iterator[BrowserContext]:
    """One browser for a block: no animation, UTC, and leave to read what a copy button copied."""
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own sandbox refuses to start as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        context = browser.new_context(
            viewport={"width": WIDE, "height": HIGH},
            reduced_motion="reduce",
            timezone_id="UTC",
            locale="en-GB",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(30_000)
        yield context
        browser.close()
