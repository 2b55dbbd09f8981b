"""The committed page in a real headless Chromium: it draws, answers, prints, and is accessible."""

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

PAGE = Path(__file__).parent.parent / "reports/report.html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ALONE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=375, height=800)

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason=f"needs a browser on the PATH: {', '.join(NAMES)}",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no browser on the PATH"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """The page, all its charts drawn, in a context of its own without a network."""
    defaults: dict[str, Any] = {"viewport": DESKTOP, "offline": True}
    context = browser.new_context(**(defaults | options))
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(PAGE.as_uri())
    if options.get("java_script_enabled", True):
        page.wait_for_selector("html.ready", state="attached")
    yield page
    context.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


def test_it_loads_without_a_complaint_or_a_request(browser: Browser) -> None:
    context = browser.new_context(viewport=DESKTOP, offline=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.on("pageerror", lambda error: said.append(("error", str(error))))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(PAGE.as_uri())
    page.wait_for_selector("html.ready", state="attached", timeout=60_000)
    page.locator("input[type=checkbox]").first.click()
    page.wait_for_timeout(200)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [PAGE.as_uri()]
    context.close()


def test_every_chart_draws_marks_in_place_of_its_picture(page: Page) -> None:
    figures = page.locator("figure.chart")
    assert figures.count() >= 14
    for figure in figures.all():
        name = figure.get_attribute("id")
        svg = figure.locator(".live svg")
        box = svg.bounding_box()
        assert box, name
        assert box["width"] > 200, name
        assert box["height"] > 150, name
        assert marks(figure.locator(".live")) > 2, name
        expect(figure.locator(".picture")).to_be_hidden()


def marks(place: Any) -> int:
    """Count the marks with data that a chart shows; axes and legends do not count."""
    shapes = ".role-mark path, .role-mark rect, .role-mark circle, .role-mark line"
    count: int = place.locator(shapes).count()
    return count


@pytest.mark.parametrize("way", ["click", "Space"])
def test_switches_take_a_series_out_of_every_chart_beside_them(page: Page, way: str) -> None:
    blocks = [b for b in page.locator(".charts").all() if b.locator("input[data-series]").count()]
    assert len(blocks) >= 6
    for block in blocks:
        lives = block.locator(".live").all()
        before = [marks(live) for live in lives]
        switch = block.locator("input[data-series]").last
        toggle(page, switch, way)
        expect(switch).not_to_be_checked()
        after = [marks(live) for live in lives]
        assert any(fewer < more for fewer, more in zip(after, before, strict=True))
        toggle(page, switch, way)
        assert [marks(live) for live in lives] == before


def toggle(page: Page, switch: Any, way: str) -> None:
    if way == "click":
        switch.click()
    else:
        switch.focus()
        page.keyboard.press(way)
    page.wait_for_timeout(150)


def test_pointing_at_a_mark_tells_its_numbers(page: Page) -> None:
    page.locator("#test_accuracy .live .mark-symbol path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    expect(tooltip).to_be_visible()
    assert re.search(r"epoch\s*1\b.*mean, %\s*\d\d\.\d\d", tooltip.inner_text(), re.DOTALL)
    page.mouse.move(0, 0)


@pytest.mark.parametrize("width", [375, 320])
def test_a_phone_need_not_scroll_sideways(browser: Browser, width: int) -> None:
    with opened(browser, viewport=ViewportSize(width=width, height=800)) as page:
        open_all(page)
        wide, seen = page.evaluate(
            "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
        )
        assert wide <= seen


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


@pytest.mark.parametrize(
    ("scheme", "viewport"), list(itertools.product(["light", "dark"], [DESKTOP, PHONE]))
)
def test_axe_finds_nothing_serious(browser: Browser, scheme: str, viewport: ViewportSize) -> None:
    with opened(browser, viewport=viewport, color_scheme=scheme) as page:
        open_all(page)
        found = Axe().run(page).response
    assert len(found["passes"]) > 20
    grave = [
        (rule["id"], [node["target"] for node in rule["nodes"]][:5])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert grave == []


def test_without_scripts_every_chart_is_a_picture(browser: Browser) -> None:
    with opened(browser, java_script_enabled=False) as page:
        assert page.locator("figure.chart").count() >= 14
        for figure in page.locator("figure.chart").all():
            box = figure.locator(".picture svg").bounding_box()
            assert box
            assert box["width"] > 200
            assert marks(figure.locator(".picture")) > 2
            expect(figure.locator(".live-frame")).to_be_hidden()
        expect(page.locator("input[type=checkbox]").first).to_be_hidden()


def test_paper_gets_the_pictures_in_dark_ink_with_all_numbers(browser: Browser) -> None:
    with opened(browser, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        for figure in page.locator("figure.chart").all():
            expect(figure.locator(".picture")).to_be_visible()
            expect(figure.locator(".live-frame")).to_be_hidden()
        ink, paper = (luminance(page, f"var(--{name})") for name in ("ink", "paper"))
        assert ink < 0.1
        assert paper > 0.9
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("figure.chart details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("figure.chart details[open]").count() == 0
        assert page.pdf().startswith(b"%PDF")


def luminance(page: Page, colour: str) -> float:
    """Relative luminance (WCAG 2.2) of a CSS colour as the page resolves it."""
    red, green, blue = page.evaluate(
        """(colour) => {
            const pixel = document.createElement("canvas").getContext("2d");
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = colour;
            pixel.fillStyle = getComputedStyle(probe).color;
            probe.remove();
            pixel.fillRect(0, 0, 1, 1);
            return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        colour,
    )
    linear: list[float] = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (red / 255, green / 255, blue / 255)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_stand_out_from_the_paper(browser: Browser, scheme: str) -> None:
    with opened(browser, color_scheme=scheme) as page:
        paper = luminance(page, "var(--paper)")
        for name in (*(f"--series-{i}" for i in range(6)), *(f"--ramp-{i}" for i in range(6))):
            lighter, darker = sorted((luminance(page, f"var({name})"), paper), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 3, name


def test_the_keyboard_reaches_everything_and_is_seen_there(browser: Browser) -> None:
    with opened(browser) as page:
        page.keyboard.press("Tab")
        skip = page.locator("a.skip")
        expect(skip).to_be_focused()
        box = skip.bounding_box()
        assert box
        assert box["y"] >= 0
        wanted = page.locator("input, summary, main a").count()
        reached = page.evaluate("[]")
        for _ in range(3 * wanted):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    """() => {
                        const all = [...document.querySelectorAll("input, summary, main a")];
                        const seen = getComputedStyle(document.activeElement).outlineStyle;
                        return [all.indexOf(document.activeElement), seen !== "none"];
                    }"""
                )
            )
            if page.evaluate("document.activeElement === document.body"):
                break
        assert {which for which, _ in reached} >= set(range(wanted))
        assert all(seen for which, seen in reached if which >= 0)
