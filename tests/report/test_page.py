"""The report says what its inputs say: on the committed tables, and on what they might become."""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from torch import nn

from normlab import files, formatting
from normlab.errors import InputError
from normlab.network import networks
from normlab.network.architecture import largest_divisor
from normlab.report import charts, norm_axes
from normlab.report import page as report
from normlab.report.sections import Inputs
from stages import report as stage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "reports/report.html"
YAML_FILE = YAML(typ="safe")


def read() -> Inputs:
    """Read the committed inputs. The images are in DVC's cache alone: others take their places."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(files, "read_images", lambda _: dict.fromkeys(range(10_000), BLANK))
            return stage.read()
    finally:
        os.chdir(before)


BLANK = np.arange(784, dtype=np.uint8).reshape(28, 28)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return read()


@pytest.fixture(scope="module")
def page(inputs: Inputs) -> str:
    return report.render(inputs)


def text(page: str) -> str:
    """What a page says, without its scripts, styles and tags."""
    bare = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_the_shapes_drawn_are_those_of_the_network() -> None:
    network = networks.build("gn", gn_groups=4)
    norms = [module for module in network if isinstance(module, nn.GroupNorm)]
    assert [norm.num_channels for norm in norms] == [channels for channels, _ in norm_axes.SHAPES]
    elementwise = networks.build("ln", ln_affine="elementwise")
    shapes = [m.normalized_shape for m in elementwise if isinstance(m, nn.LayerNorm)]
    assert shapes == [(channels, side, side) for channels, side in norm_axes.SHAPES]


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 16])
def test_the_groups_drawn_are_those_of_the_network(limit: int) -> None:
    for channels, _ in norm_axes.SHAPES:
        assert norm_axes.groups_of(channels, limit) == largest_divisor(channels, limit)


def test_the_boxes_count_what_each_normalization_averages_over() -> None:
    kinds = {kind["name"]: kind["boxes"] for kind in norm_axes.normalized(gn_groups=4, batch=128)}
    first = {name: boxes[0]["count"] for name, boxes in kinds.items()}
    assert first == {
        "Batch norm": 128 * 26 * 26,
        "Group norm": 3 * 26 * 26,
        "Layer norm": 12 * 26 * 26,
        "Instance norm": 26 * 26,
    }
    widths = [float(box["width"]) for box in kinds["Layer norm"]]
    depth = norm_axes.IMAGE[0] * 128
    sides = [side for _, side in norm_axes.SHAPES]
    drawn = [(width - depth) / side for width, side in zip(widths, sides, strict=True)]
    assert drawn == pytest.approx([norm_axes.SIDE] * 7, abs=0.02)  # one scale for all layers


def test_numbers_of_the_page_are_those_of_the_inputs(inputs: Inputs, page: str) -> None:
    said = text(page)
    for m in inputs.metrics.values():
        accuracy = m["accuracy"]
        assert formatting.percent(accuracy["mean"]) in said
        ends = (accuracy["low"], accuracy["high"])
        assert formatting.interval(*ends, formatting.percent) in said
        assert f"{m['parameters']['mean']:,.0f} parameters" in said
    for pair in inputs.pairs:
        assert f"{formatting.points(pair['difference'])} points" in said
        assert f"({formatting.interval(pair['low'], pair['high'])}) , {pair['verdict']}" in said


def test_every_finding_has_a_card_with_verdict_and_sentence(inputs: Inputs, page: str) -> None:
    cards = re.findall(r'<li class="card finding" id="finding-(\w+)">(.*?)</li>', page, re.DOTALL)
    assert [name for name, _ in cards] == list(inputs.judged)
    for name, card in cards:
        finding = inputs.judged[name]
        said = text(card)
        assert finding["claim"] in said
        assert finding["sentence"] in said
        assert finding["verdict"] in said
        assert f'href="#{finding["study"]}"' in card or finding["study"] == "main"


def test_links_within_the_page_lead_somewhere(page: str) -> None:
    places = re.findall(r'\bid="([^"]+)"', re.sub(r"<script\b.*?</script>", "", page, flags=re.S))
    assert len(set(places)) == len(places)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(places)


def test_rebuild_commands_name_stages_that_there_are(page: str) -> None:
    commands = set(re.findall(r"Rebuild: <code>dvc repro ([\w./:]+)</code>", page))
    stages = {
        f"{'' if file == 'dvc.yaml' else f'{file}:'}{name}"
        for file in ("dvc.yaml", "studies/dvc.yaml", "reports/dvc.yaml")
        for name in YAML_FILE.load(ROOT / file)["stages"]
    }
    assert {"evaluate", "studies/dvc.yaml:score_groups", "studies/dvc.yaml:judge"} <= commands
    assert commands <= stages | {"reports/dvc.yaml"}


def test_hashes_and_versions_are_those_of_the_lock_files(inputs: Inputs, page: str) -> None:
    said = text(page)
    for lock in ("dvc.lock", "studies/dvc.lock"):
        for name, locked in YAML_FILE.load(ROOT / lock)["stages"].items():
            assert f"Stage {name} {lock}" in said
            for file in [*locked.get("deps", []), *locked["outs"]]:
                assert f"{file['path']} {file['md5']}" in said
    pins = re.findall(r"^([\w-]+)==([\w.]+)", inputs.requirements, re.MULTILINE)
    assert all(f"{name} {version}" in said for name, version in pins)
    for key, value in (inputs.params | inputs.study_params).items():
        assert f"{key} {report.compact(value)}" in said


def test_stages_are_told_of_in_an_order_of_their_own(inputs: Inputs) -> None:
    """Which stage ended first, when all ran for the first time, is not to show."""
    assert all(list(stages) == sorted(stages) for stages in inputs.locks.values())


def test_the_page_needs_no_network(page: str) -> None:
    shown = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'\b(?:src|href|action|srcset)="(?!#|data:)[^"]*', shown)
    assert "@import" not in shown
    assert "url(" not in shown


def test_the_committed_page_and_short_form_are_those_of_the_committed_inputs(
    inputs: Inputs, page: str
) -> None:
    def without_images(made: str) -> str:
        return re.sub(r"data:image/png;base64,[\w+/=]+", "", made)

    assert without_images(PAGE.read_text()) == without_images(page)
    assert (ROOT / "reports/README.md").read_text() == report.readme(inputs)


def test_the_same_inputs_give_the_same_bytes_in_another_process(page: str, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.report.test_page import read; from normlab.report import page;"
        "open(sys.argv[1], 'w').write(page.render(read()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-c", script, str(tmp_path / "page.html")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert (tmp_path / "page.html").read_text() == page


def with_pair(inputs: Inputs, **changes: Any) -> Inputs:
    """The same, with another finding on the first pair."""
    table = inputs.comparisons.astype(object)
    for column, value in changes.items():
        table.loc[0, column] = value
    return inputs._replace(comparisons=table)


def test_the_answer_changes_with_the_numbers(inputs: Inputs) -> None:
    none = inputs.comparisons.assign(verdict="no difference shown")
    nothing = inputs._replace(comparisons=none)
    assert report.answer(nothing)[0] == "No difference in accuracy is shown between the three."
    better = with_pair(nothing, difference=0.004, low=0.001, high=0.007, verdict="better")
    assert report.answer(better)[:2] == [
        "Batch norm + L1 is better than group norm by 0.40 points of test accuracy "
        "(95 % interval 0.10 to 0.70).",
        "Between the others no difference is shown.",
    ]
    worse = with_pair(nothing, difference=-0.004, low=-0.007, high=-0.001, verdict="worse")
    assert report.answer(worse)[0].startswith("Group norm is better than batch norm + L1 by 0.40 ")
    assert report.answer(worse)[0] in report.readme(worse)


def test_what_is_not_known_is_left_out(inputs: Inputs) -> None:
    """One seed, one finding without an interval, a claim with markup in it."""
    summary = inputs.summary.assign(std=np.nan, low=np.nan, high=np.nan)
    unknown: dict[str, Any] = {
        **dict.fromkeys(("low", "high", "p", "p_holm", "smallest_p", "trials", "seeds")),
        "claim": "More <b>bold</b> & better",
        "unit": "times",
        "effect": 3.0,
        "smallest_effect": 2.0,
    }
    findings = inputs.findings.astype(object)
    for column, value in unknown.items():
        findings.loc[0, column] = value
    page = report.render(inputs._replace(summary=summary, findings=findings))
    assert "<b>bold</b>" not in page
    assert "More &lt;b&gt;bold&lt;/b&gt; &amp; better" in page
    assert "nan" not in text(page).lower().split()


def test_of_many_digits_that_all_models_miss_the_first_are_shown(inputs: Inputs) -> None:
    trials = inputs.final[["variant", "seed"]].drop_duplicates().to_dict("records")
    wrong = {"study": "main", "true": 4, "predicted": 9, "probability": 0.9}
    rows = [one | wrong | {"index": index} for index in range(2_475) for one in trials]
    made = report.render(inputs._replace(misclassified=pd.DataFrame(rows)))
    said = (
        f"2475 test images that no model reads right, of which these are the first {report.SHOWN}"
    )
    assert said in text(made)
    assert len(made) < 1.2 * len(report.render(inputs))


@dataclass
class Place:
    values: dict[str, Any]
    order: list[str]


@pytest.mark.parametrize(
    "place",
    [
        Place({"effect": 0.4, "low": 0.2, "high": 0.6}, ["zero", "low", "at", "high"]),
        Place({"effect": -0.1, "low": -0.3, "high": 0.1}, ["low", "at", "zero", "high"]),
        Place(
            {"effect": 0.4, "low": 0.3, "high": 0.6, "smallest_effect": 0.1},
            ["left", "zero", "right", "low", "at", "high"],
        ),
        Place(
            {"effect": 36.0, "low": None, "high": None, "smallest_effect": 2.0, "unit": "times"},
            ["left", "zero", "right", "at"],
        ),
    ],
)
def test_an_effect_is_placed_in_order_and_in_sight(place: Place) -> None:
    drawn = report.effect(place.values)
    assert drawn
    assert sorted(drawn, key=lambda name: drawn[name]) == place.order
    assert all(0 < at < 100 for at in drawn.values())


def test_a_picture_shows_every_series_and_no_script() -> None:
    rows = [
        {"series": key, "epoch": epoch, "mean": 99.0, "low": 98.0, "high": 99.5}
        for key in ("a", "b")
        for epoch in (1, 2, 3)
    ]
    series = charts.named({"a": "First", "b": "Second"})
    spec = charts.curves(pd.DataFrame(rows), series, "accuracy")
    picture = charts.picture(spec)
    assert all(f"--series-{i}" in picture for i in (0, 1))
    assert "<script" not in picture
    assert json.loads(json.dumps(spec)) == spec


def test_the_picture_labels_losses_to_their_digits() -> None:
    rows = [
        {"series": "a", "epoch": epoch, "mean": loss, "low": loss, "high": loss}
        for epoch, loss in enumerate((0.06, 0.03, 0.015), start=1)
    ]
    picture = charts.picture(charts.curves(pd.DataFrame(rows), charts.named({"a": "A"}), "loss"))
    assert {"0.02", "0.04"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", picture))


def test_readings_name_the_most_frequent_first() -> None:
    assert report.readings([4, 4, 4]) == "4"
    assert report.readings([9, 4, 4]) == "4 (2 of 3), 9 (1 of 3)"


def test_a_missing_input_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^reports/summary\.csv: cannot be read: [^\n]+$"):
        stage.main()
