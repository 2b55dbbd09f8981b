"""The committed page is for everybody: on paper, in light and dark, by ear and by keyboard."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.report import chromium
from tests.report.chromium import PAGE, Scheme, open_details, open_page

pytestmark = chromium.MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.chromium() as browser:
        yield browser


@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1280)])
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


def test_paper_gets_the_pictures_in_dark_ink_with_all_numbers(browser: Browser) -> None:
    with open_page(browser, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        for figure in page.locator("figure.chart").all():
            expect(figure.locator(".picture svg")).to_be_visible()
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
    names = set(re.findall(r"var\((--series-\d+(?:-\d+)?)\)", PAGE.read_text()))
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
