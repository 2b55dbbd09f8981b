"""What is drawn of studies follows from their tables."""

import pytest

from normlab.data.datasets import FASHION_MNIST
from normlab.report import charts, sections
from normlab.report import page as report
from normlab.report.inputs import Inputs
from tests.report.test_page import text


def with_accuracy(inputs: Inputs, study: str, label: str, accuracy: float) -> Inputs:
    """The same, with another mean of one arm."""
    tables = inputs.studies[study]
    summary = tables.summary.copy()
    summary.loc[
        (summary["label"] == label) & (summary["measure"] == "test_accuracy"), ["mean", "low"]
    ] = accuracy
    others = dict(inputs.studies) | {study: tables._replace(summary=summary)}
    return inputs._replace(studies=others)


@pytest.mark.parametrize("study", ["l1", "layer_norm"])
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
    study, labels = "layer_norm", inputs.studies["layer_norm"].labels
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
        for study in ("groups", "layer_norm")
    }
    assert told == {"groups": False, "layer_norm": True}


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
    chart = sections.replication("replication", nothing)[0].figures[0]
    assert set(chart.numbers["The reference’s report"]) == {"—"}
    rows = [row for values in chart.spec["datasets"].values() for row in values]
    assert all(row["y_mean"] is None for row in rows if "reference" in row["series"])


def test_arms_whose_validation_images_are_the_harder_are_counted(inputs: Inputs) -> None:
    summaries = [tables.summary for tables in inputs.studies.values()]
    measured = sum((one["measure"] == "val_accuracy").sum() for one in summaries)
    before = sections.easier(inputs)
    assert before["arms"] == measured
    easy = with_accuracy(inputs, "l1", inputs.studies["l1"].labels[0], 1.0)
    hard = with_accuracy(inputs, "l1", inputs.studies["l1"].labels[0], 0.0)
    assert sections.easier(easy)["below"] == sections.easier(hard)["below"] + 1
    # The replication learns from all training images, and has no others to be measured on.
    alone = inputs._replace(studies={"replication": inputs.studies["replication"]})
    assert sections.easier(alone) == {"arms": 0, "below": 0}


@pytest.mark.parametrize("credited", [True, False])
def test_the_page_of_another_data_set_speaks_of_no_digits(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, credited: bool
) -> None:
    own = FASHION_MNIST._replace(name="letters", noun="image", credit="")
    dataset = FASHION_MNIST if credited else own
    monkeypatch.setattr(charts, "picture", lambda _: "")
    other = inputs._replace(dataset=dataset, params=inputs.params | {"dataset": "another"})
    said = text(report.render(other))
    assert "digit" not in said.lower()
    assert "MNIST" not in said.replace("Fashion-MNIST", "")
    assert f"Misread {dataset.noun}s" in said
    assert f"trained on {dataset.name} with" in said
    assert ("under the MIT licence. The images above are single items of it" in said) == credited
    shown = [dataset.names[int(true)] for true in inputs.misclassified["true"].unique()]
    assert any(name in said for name in shown)
