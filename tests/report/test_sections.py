"""What is drawn of studies follows from their tables."""

import pytest

from normlab import formatting
from normlab.data.datasets import FASHION_MNIST
from normlab.report import charts, sections
from normlab.report import page as report
from normlab.report.inputs import Inputs
from tests.report.test_page import text


def with_accuracy(inputs: Inputs, study: str, label: str, accuracy: float) -> Inputs:
    """The same, with another mean test accuracy of one arm."""
    return with_mean(inputs, study, label, "test_accuracy", accuracy)


def with_mean(inputs: Inputs, study: str, label: str, measure: str, mean: float) -> Inputs:
    tables = inputs.studies[study]
    summary = tables.summary.copy()
    rows = (summary["label"] == label) & (summary["measure"] == measure)
    summary.loc[rows, ["mean", "low"]] = mean
    others = dict(inputs.studies) | {study: tables._replace(summary=summary)}
    return inputs._replace(studies=others)


@pytest.mark.parametrize("study", ["l1", "norms"])
def test_arms_are_shown_once_more_without_one_that_fails(inputs: Inputs, study: str) -> None:
    labels = inputs.studies[study].labels
    failed = with_accuracy(inputs, study, labels[0], 0.1)
    for label in labels[1:]:
        failed = with_accuracy(failed, study, label, 0.99)
    everything, near = sections.any_study(study, failed)
    assert [one.label for one in everything.series] == labels
    assert [one.label for one in near.series] == labels[1:]
    assert [one.colour for one in near.series] == [one.colour for one in everything.series[1:]]
    accuracy, convergence = near.figures
    assert accuracy.numbers.index.tolist() == labels[1:]
    assert f"without {labels[0]}" in accuracy.title
    assert convergence.numbers.columns.tolist() == labels[1:]


def test_one_arm_without_an_error_does_not_set_the_others_apart(inputs: Inputs) -> None:
    study, labels = "norms", inputs.studies["norms"].labels
    perfect = with_accuracy(inputs, study, labels[0], 1.0)
    for label in labels[1:]:
        perfect = with_accuracy(perfect, study, label, 0.9991)
    assert len(sections.any_study(study, perfect)) == 1


def test_arms_of_one_variant_have_shades_of_its_colour(inputs: Inputs) -> None:
    for study in ("groups", "l1"):
        (variant,) = inputs.studies[study].summary["variant"].unique()
        position = list(inputs.variants).index(variant)
        series = sections.any_study(study, inputs)[0].series
        assert all(one.colour.startswith(f"var(--series-{position}-") for one in series)


def test_sizes_are_told_where_they_differ(inputs: Inputs) -> None:
    told = {
        study: "parameters" in sections.any_study(study, inputs)[0].figures[0].numbers
        for study in ("groups", "norms")
    }
    assert told == {"groups": False, "norms": True}


def test_who_cannot_see_a_chart_is_told_its_numbers(inputs: Inputs) -> None:
    for study, tables in inputs.studies.items():
        draw = sections.FIGURES.get(study, sections.any_study)
        first = draw(study, inputs)[0].figures[0]
        said = first.label
        assert said.startswith(f"{first.title}, by ")
        assert all(label in said for label in tables.labels)
        assert all(cell in said for cell in first.numbers.iloc[-1])


def test_a_reference_that_reported_nothing_of_a_variant_has_no_point(inputs: Inputs) -> None:
    nothing = inputs._replace(reported={})
    chart = sections.reference("reference", nothing)[0].figures[0]
    assert set(chart.numbers["The reference’s report"]) == {"—"}
    rows = [row for values in chart.spec["datasets"].values() for row in values]
    assert all(row["y_mean"] is None for row in rows if "reference" in row["series"])


def test_arms_for_which_the_test_images_of_mnist_are_the_easier_are_counted(
    inputs: Inputs,
) -> None:
    other = [study for study in inputs.studies if study.endswith(sections.AGAIN)]
    assert other
    own = [tables for study, tables in inputs.studies.items() if study not in other]
    summaries = [tables.summary for tables in own]
    before = sections.easier(inputs)
    assert before["arms"] == sum((one["measure"] == "easier").sum() for one in summaries)
    label = inputs.studies["l1"].labels[0]
    easy, hard = (with_mean(inputs, "l1", label, "easier", mean) for mean in (0.01, -0.01))
    assert sections.easier(easy)["easier"] == sections.easier(hard)["easier"] + 1
    assert sections.easier(inputs._replace(studies={})) == {"arms": 0, "easier": 0}


def test_the_reference_is_shown_on_seen_and_unseen_images(inputs: Inputs) -> None:
    (accuracy,) = sections.reference("reference", inputs)[0].figures
    summary = inputs.studies["reference"].summary
    for measure, title in sections.LESS.items():
        means = summary[summary["measure"] == measure]["mean"].tolist()
        cells = accuracy.numbers[f"{title}, points"].tolist()
        assert all(
            cell.startswith(formatting.points(mean))
            for cell, mean in zip(cells, means, strict=True)
        )


@pytest.mark.parametrize("credited", [True, False])
def test_the_page_of_another_data_set_speaks_of_no_digits(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, credited: bool
) -> None:
    own = FASHION_MNIST._replace(name="letters", noun="image", credit="")
    dataset = FASHION_MNIST if credited else own
    monkeypatch.setattr(charts, "picture", lambda _: "")
    # The studies are of MNIST whatever the pipeline trains on, and say so.
    alone = inputs._replace(studies={}, findings={})
    other = alone._replace(dataset=dataset, params=inputs.params | {"dataset": "another"})
    said = text(report.render(other))
    assert "digit" not in said.lower()
    assert "MNIST" not in said.replace("Fashion-MNIST", "")
    assert f"Misread {dataset.noun}s" in said
    assert f"trained on {dataset.name} with" in said
    assert ("under the MIT licence. The images above are single items of it" in said) == credited
    shown = [dataset.names[int(true)] for true in inputs.misclassified["true"].unique()]
    assert any(name in said for name in shown)
