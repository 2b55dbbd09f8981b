"""The committed page in a real headless Chromium: it draws, and answers to who uses it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from normlab.report import page as report
from normlab.report.inputs import Inputs
from tests.report import chromium
from tests.report.chromium import PAGE, empty_page, open_details, open_page
from tests.report.conftest import one_epoch

MARKS = ".role-mark :is(path, rect, circle, line)"  # of data; not of axes

pytestmark = chromium.MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


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
        page.goto(PAGE.as_uri())
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


def test_without_scripts_every_chart_is_a_picture(browser: Browser) -> None:
    with open_page(browser, java_script_enabled=False) as page:
        for figure in charts(page):
            assert_drawn(figure.locator(".picture svg"))
            assert figure.locator(f".picture {MARKS}").count() > 2
            expect(figure.locator(".live-frame")).to_be_hidden()
        expect(page.locator("input:visible")).to_have_count(0)


def test_the_page_of_a_single_epoch_is_no_taller_and_draws(
    inputs: Inputs, page: Page, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(report.render(one_epoch(inputs)))
    height = "document.documentElement.scrollHeight"
    with open_page(browser, path) as short:
        for figure in charts(short):
            assert_drawn(figure.locator(".live svg"))
            assert figure.locator(f".live {MARKS}").count() > 2
        assert short.evaluate(height) < 1.3 * page.evaluate(height)
