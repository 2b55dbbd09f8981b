"""What the pages say is there, and the generated parts are those that their commands write."""

import json
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pandas as pd
import pytest

from normlab.errors import InputError
from normlab.params import Params, Section, allowed_values, section_of
from normlab.studies import Compared, Study
from tools import headline, parameters

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("[CRS]*.md"), *(ROOT / "docs").glob("*.md")]
MADE = (
    *("build/", "checkpoints/", "data/", "models/", "reports/", "studies/models/"),
    "benchmarks/results.md",
)


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*)`", text)
    homes = (ROOT, page.parent)
    gone = [p for p in paths if not any((h / p).exists() for h in homes) and not p.startswith(MADE)]
    assert gone == []


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.M)) <= targets


def test_the_page_of_parameters_is_what_its_command_writes() -> None:
    committed = (ROOT / parameters.PAGE).read_text()
    assert committed == parameters.page(ROOT), "run: make docs"


@pytest.mark.parametrize("model", [Params, Study, Compared])
def test_every_parameter_is_described_and_its_constraints_are_said_in_words(
    model: type[Section],
) -> None:
    for name, field in model.model_fields.items():
        # What an arm changes of the pipeline's parameters is described there.
        assert field.description or (model is Compared and name in Params.model_fields), name
        if section_of(field):
            continue
        numbers = {
            str(bound - (field.annotation is int and side == "lt"))
            for constraint in field.metadata
            for side in ("ge", "gt", "le", "lt")
            if (bound := getattr(constraint, side, None)) is not None
        }
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        words = set(re.findall(r"[\w.-]+", allowed_values(field)))
        assert {*numbers, *map(str, choices)} <= words, name


def test_the_readmes_headline_is_the_reports_short_form() -> None:
    short = (ROOT / "reports/README.md").read_text()
    readme = (ROOT / "README.md").read_text()
    before, after = (readme.index(mark) for mark in headline.MARKS)
    shown = readme[before:after].removeprefix(headline.MARKS[0])
    assert shown.strip() == headline.headline(short).strip(), "run: make report"
    claims = pd.read_csv(ROOT / "studies/reports/findings.csv")
    assert all(sentence in short for sentence in claims["sentence"]), "run: make report"
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())
    for accuracy in metrics["accuracy"].values():
        assert f"{accuracy:.2%}".replace("%", " %") in shown, "run: make report"
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme):
        assert (ROOT / target).exists(), target


def test_a_readme_without_marks_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/README.md").write_text("# Title\n\n![x](figures/x.png)\n")
    (tmp_path / "README.md").write_text("# normlab\n")
    with pytest.raises(InputError, match=r"README\.md: got no headline to replace"):
        headline.main()
    assert (tmp_path / "README.md").read_text() == "# normlab\n"
    (tmp_path / "README.md").write_text("a\n" + "\nold\n".join(headline.MARKS) + "\nb\n")
    headline.main()
    made = (tmp_path / "README.md").read_text()
    assert made.startswith(f"a\n{headline.MARKS[0]}\n\n![x](reports/figures/x.png)\n")
    assert "old" not in made
    assert made.endswith(f"{headline.MARKS[1]}\nb\n")
    headline.main()
    assert (tmp_path / "README.md").read_text() == made
