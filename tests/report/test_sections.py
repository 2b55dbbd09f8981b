"""What is drawn of studies follows from their tables."""

import pytest

from normlab.report import sections
from normlab.report.inputs import Inputs


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
