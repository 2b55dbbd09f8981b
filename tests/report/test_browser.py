"""The committed page in a real headless Chromium: it draws, answers, prints, and is accessible."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reports/report.html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ALONE = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
MARKS = ".role-mark :is(path, rect, circle, line)"  # of data; not of axes
Scheme = Literal["light", "dark"]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason=f"needs a browser on the PATH: {', '.join(NAMES)}",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, f"needs a browser on the PATH: {', '.join(NAMES)}"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


@contextmanager
def open_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """The page, all its charts drawn, in a context of its own without a network."""
    with empty_page(browser, **options) as page:
        load(page)
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


def load(page: Page) -> None:
    page.goto(PAGE.as_uri())


def open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def charts(page: Page) -> list[Locator]:
    found = page.locator("figure.chart").all()
    assert len(found) >= 14
    return found


def assert_drawn(svg: Locator) -> None:
    expect(svg).to_be_visible()
    box = svg.bounding_box()
    assert box
    assert box["width"] > 200
    assert box["height"] > 150


def test_it_loads_and_answers_without_a_complaint_or_a_request(browser: Browser) -> None:
    said: list[str] = []
    asked: list[str] = []
    with empty_page(browser) as page:
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        load(page)
        page.wait_for_selector("html.ready", state="attached")
        page.evaluate("document.querySelectorAll('input').forEach((each) => each.click())")
        page.locator(MARKS).last.hover(force=True)
        page.wait_for_timeout(300)
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [PAGE.as_uri()]


def test_every_chart_draws_marks_in_place_of_its_picture(page: Page) -> None:
    for figure in charts(page):
        expect(figure).to_have_class(re.compile(r"\bdrawn\b"))
        expect(figure.locator(".picture")).to_be_hidden()
        assert_drawn(figure.locator(".live svg"))
        assert figure.locator(f".live {MARKS}").count() > 2


@pytest.mark.parametrize("way", ["click", "Space"])
def test_a_switch_takes_its_series_alone_out_of_every_chart_beside_it(page: Page, way: str) -> None:
    blocks = page.locator(".charts", has=page.locator("input[data-series]")).all()
    assert len(blocks) >= 6
    for block in blocks:
        charts = block.locator(".live").all()
        before = [marks(chart) for chart in charts]
        switches = block.locator("input[data-series]")
        switch = switches.first if way == "click" else switches.last
        label = switch.locator("xpath=..").inner_text().strip()

        toggle(switch, way)
        expect(switch).not_to_be_checked()
        for chart, all_marks in zip(charts, before, strict=True):
            expect(chart.locator(MARKS)).not_to_have_count(all_marks.total())
            (gone,) = all_marks.keys() - marks(chart).keys()
            assert label.startswith(gone)
            assert marks(chart) == Counter({s: n for s, n in all_marks.items() if s != gone})

        toggle(switch, way)
        expect(switch).to_be_checked()
        for chart, all_marks in zip(charts, before, strict=True):
            expect(chart.locator(MARKS)).to_have_count(all_marks.total())
            assert marks(chart) == all_marks


def marks(chart: Locator) -> Counter[str]:
    """Count the marks of each series, by the data that Vega ties to its elements."""
    series = "(elements) => elements.map((element) => element.__data__.datum.series)"
    return Counter(chart.locator(MARKS).evaluate_all(series))


def toggle(switch: Locator, way: str) -> None:
    if way == "click":
        switch.click()
    else:
        switch.focus()
        switch.page.keyboard.press(way)


def test_pointing_at_a_mark_tells_its_numbers(page: Page) -> None:
    tooltip = page.locator("#vg-tooltip-element.visible")
    for figure in charts(page):
        figure.locator(f".live {MARKS}").last.hover(force=True)
        expect(tooltip).to_be_visible()
        assert re.search(r"\d", tooltip.inner_text())
        assert not re.search(r"undefined|null|NaN", tooltip.inner_text())
        page.mouse.move(0, 0)
        expect(tooltip).to_have_count(0)


@pytest.mark.parametrize("width", [375, 320])
def test_a_phone_need_not_scroll_sideways(browser: Browser, width: int) -> None:
    with open_page(browser, width=width) as page:
        open_details(page)
        content, screen = page.evaluate(
            "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
        )
        assert content <= screen <= width


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, scheme: Scheme, width: int) -> None:
    with open_page(browser, width=width, color_scheme=scheme) as page:
        open_details(page)
        found = Axe().run(page).response
    assert len(found["passes"]) > 20
    grave = [
        (rule["id"], [node["target"] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert grave == []


def test_without_scripts_every_chart_is_a_picture(browser: Browser) -> None:
    with open_page(browser, java_script_enabled=False) as page:
        for figure in charts(page):
            assert_drawn(figure.locator(".picture svg"))
            assert figure.locator(f".picture {MARKS}").count() > 2
            expect(figure.locator(".live-frame")).to_be_hidden()
        expect(page.locator("input:visible")).to_have_count(0)


def test_paper_gets_the_pictures_in_dark_ink_with_all_numbers(browser: Browser) -> None:
    with open_page(browser, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        for figure in charts(page):
            assert_drawn(figure.locator(".picture svg"))
            expect(figure.locator(".live-frame")).to_be_hidden()
        paper = luminance(page, background(page, "body"))
        assert paper > 0.9
        assert luminance(page, background(page, ".card")) > 0.9
        for ink in inks(page):
            assert contrast(luminance(page, ink), paper) >= 4.5, ink
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("figure.chart details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("figure.chart details[open]").count() == 0
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_stand_out_from_the_paper(browser: Browser, scheme: Scheme) -> None:
    names = set(re.findall(r"var\((--(?:series|ramp)-\d+)\)", PAGE.read_text()))
    assert len(names) >= 6
    with open_page(browser, color_scheme=scheme) as page:
        grounds = [luminance(page, background(page, place)) for place in ("body", ".card")]
        assert all(ground > 0.9 if scheme == "light" else ground < 0.1 for ground in grounds)
        for name in sorted(names):
            colour = luminance(page, f"var({name})")
            assert min(contrast(colour, ground) for ground in grounds) >= 3, name


def background(page: Page, selector: str) -> str:
    colour = "(element) => getComputedStyle(element).backgroundColor"
    found: str = page.locator(selector).first.evaluate(colour)
    return found


def inks(page: Page) -> list[str]:
    """All colours of text that shows."""
    found: list[str] = page.evaluate(
        """() => {
            const texts = (element) =>
                [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
            const shown = [...document.body.querySelectorAll("*:not(script)")].filter(
                (element) => texts(element) && element.checkVisibility({visibilityProperty: true}));
            const ink = (element) =>
                getComputedStyle(element)[element.localName === "text" ? "fill" : "color"];
            return [...new Set(shown.map(ink))];
        }"""
    )
    assert len(found) > 1
    return found


def contrast(one: float, other: float) -> float:
    """Ratio of two luminances (WCAG 2.2)."""
    darker, lighter = sorted((one, other))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(page: Page, colour: str) -> float:
    """Relative luminance (WCAG 2.2) of an opaque CSS colour as the page resolves it."""
    *channels, alpha = page.evaluate(
        """(colour) => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.backgroundColor = colour;
            const canvas = document.createElement("canvas").getContext("2d");
            canvas.fillStyle = getComputedStyle(probe).backgroundColor;
            probe.remove();
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        }""",
        colour,
    )
    assert alpha == 255, f"{colour} is no opaque colour"
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in channels)
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def test_the_keyboard_reaches_everything_and_is_seen_there(browser: Browser) -> None:
    with open_page(browser) as page:
        skip = page.locator("a.skip")
        expect(skip).not_to_be_in_viewport()
        page.keyboard.press("Tab")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport(ratio=1)

        wanted: list[str] = page.evaluate(f"{REACHABLE}.map((each) => each.outerHTML.slice(0, 80))")
        seen: dict[int, bool] = {}
        for _ in range(2 * len(wanted)):
            position, outlined = page.evaluate(
                f"""() => {{
                    const style = getComputedStyle(document.activeElement);
                    const outlined =
                        style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                    return [{REACHABLE}.indexOf(document.activeElement), outlined];
                }}"""
            )
            seen[position] = outlined
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
        assert [each for i, each in enumerate(wanted) if i not in seen] == []
        assert [each for i, each in enumerate(wanted) if not seen[i]] == []


REACHABLE = """[...document.querySelectorAll("a[href], input, summary, [tabindex='0']")]
    .filter((each) => each.checkVisibility({visibilityProperty: true}))"""
