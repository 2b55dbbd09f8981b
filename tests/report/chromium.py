"""A headless Chromium, and the page in it, for the tests that look at both."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reports/report.html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ALONE = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
Scheme = Literal["light", "dark"]

MARKS = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason=f"needs a browser on the PATH: {', '.join(NAMES)}",
    ),
]


@contextmanager
def chromium() -> Iterator[Browser]:
    assert CHROMIUM, f"needs a browser on the PATH: {', '.join(NAMES)}"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE) as browser,
    ):
        yield browser


@contextmanager
def open_page(browser: Browser, path: Path = PAGE, **options: Any) -> Iterator[Page]:
    """The page, all its charts drawn, in a context of its own without a network."""
    with empty_page(browser, **options) as page:
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html.ready", state="attached")
        yield page


@contextmanager
def empty_page(browser: Browser, width: int = 1280, **options: Any) -> Iterator[Page]:
    options |= {"viewport": ViewportSize(width=width, height=900), "offline": True}
    options |= {"reduced_motion": "reduce"}  # else the page still scrolls while the pointer moves
    with browser.new_context(**options) as context:
        context.set_default_timeout(30_000)
        yield context.new_page()


def open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
