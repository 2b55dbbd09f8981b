"""`dvc plots` as it is after `make install`, looked at in a browser that has no network."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pipeline.copies import ROOT, git, run
from tests.report import chromium
from tests.report.chromium import empty_page
from tools import plots_template
from tools.git import copy_known

NETWORK = "https://cdn.jsdelivr.net/npm/vega"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with its results, and in the workspace one of them is another."""
    folder = tmp_path_factory.mktemp("plots")
    copy_known(ROOT, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Begin")
    curves = folder / "reports/test_curves.csv"
    curves.write_text("".join(curves.read_text().splitlines(keepends=True)[:-1]))
    run(folder, "python", "-m", "tools.plots_template")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.chromium() as browser:
        yield browser


def assert_drawn(page: Page, source: str) -> None:
    """As many charts as DVC has written, each with marks, and all pictures."""
    written = len(re.findall(r"vegaEmbed\(['\"]#", source))
    assert written > 2
    drawn = page.locator("svg.marks", has=page.locator(".role-mark"))
    expect(drawn).to_have_count(written, timeout=60_000)
    widths = page.evaluate("Array.from(document.images, (image) => image.naturalWidth)")
    assert all(width > 0 for width in widths)


@pytest.mark.parametrize(
    ("command", "chart", "revisions"),
    [
        (["plots", "show"], "Test_accuracy", {"workspace"}),
        (["plots", "diff", "HEAD"], "Test_accuracy", {"HEAD", "workspace"}),
        (["--cd", "studies", "plots", "show"], "groups", {"workspace"}),
    ],
)
@chromium.MARKS[0]  # how long it may take
@chromium.MARKS[1]  # where there is a browser
def test_charts_are_drawn_and_nothing_is_asked_of_the_network(
    project: Path, browser: Browser, command: list[str], chart: str, revisions: set[str]
) -> None:
    run(project, "dvc", *command)
    written = project / ("studies" if "studies" in command else "") / "dvc_plots/index.html"
    asked, failed = list[str](), list[str]()
    with empty_page(browser) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(written.as_uri())
        assert_drawn(page, written.read_text(encoding="utf-8"))
        legend = page.locator(f"#{chart} .role-legend-label text").all_text_contents()
        assert revisions == {text for text in legend if text in {"HEAD", "workspace"}}
    assert failed == []
    assert [url for url in asked if not url.startswith("file:")] == []


def test_it_is_set_for_this_environment_alone_and_a_persons_own_page_stays(project: Path) -> None:
    local, own = project / ".dvc/config.local", project / "mine.html"
    assert git(project, "status", "--porcelain") == " M reports/test_curves.csv\n"
    page = (project / plots_template.TEMPLATE).read_text(encoding="utf-8")
    assert (page.count("{plot_divs}"), page.count("{scripts}")) == (1, 0)
    settings = local.read_text()
    try:
        own.write_text("{plot_divs} are mine")
        run(project, "dvc", "config", "--local", "plots.html_template", str(own))
        run(project, "python", "-m", "tools.plots_template")
        run(project, "dvc", "plots", "show", "reports/test_curves.csv")
        assert (project / "dvc_plots/index.html").read_text().endswith(" are mine")
        # Nothing is set: a clone whose environment is another one's.
        local.unlink()
        run(project, "dvc", "plots", "show", "reports/test_curves.csv")
        assert NETWORK in (project / "dvc_plots/index.html").read_text()
    finally:
        local.write_text(settings)
        own.unlink()
