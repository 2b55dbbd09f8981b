"""Which normalization to take where: each with its own learning rate, place by place.

A place is a number of training images with a size of batches. What is said of it comes from the
studies `tuned_*`, the claims that compare two normalizations there, and the search for the rates.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from normlab import formatting as fmt
from normlab.evidence import declared, rates
from normlab.report import charts, figure_tables, looks, sections
from normlab.report.inputs import Inputs, Row, records
from normlab.report.sections import Block, Figure

SHOWN = ("supported", "contradicted")


class Place(NamedTuple):
    """Where normalizations are compared, and what was found there."""

    name: str
    estimates: list[Row]
    """Of each normalization label, mean, low and high of the test accuracy; the rate, the others
    that do as well, and whether it is the first or the last that was tried (`at_the_end`)."""
    pairs: list[Row]
    """Of any two of them name, the finding, and whose labels are compared, first less second."""

    @property
    def take(self) -> str:
        """Say which to take: those that are not shown to do worse than another."""
        lose = {_loser(pair) for pair in self.pairs if pair["finding"]["verdict"] in SHOWN}
        left = [one["label"] for one in self.estimates if one["label"] not in lose]
        if len(left) < len(self.estimates):
            return " or ".join([left[0], *map(fmt.within, left[1:])])
        alike = all(pair["finding"]["verdict"] == "no effect that matters" for pair in self.pairs)
        return "Any: no difference matters" if alike else "Any: no difference is shown"


def places(inputs: Inputs) -> list[Place]:
    """Gather what was found, place by place; there is none where the studies were not run."""
    return [
        Place(
            name=_name(inputs, study, batch),
            estimates=list(_estimates(inputs, study, batch)),
            pairs=list(_pairs(inputs, study, batch)),
        )
        for study, batch in _known(inputs)
    ]


def blocks(inputs: Inputs) -> list[Block]:
    """Draw the test accuracy of every normalization at every place, seed by seed, if there are."""
    known = list(_known(inputs))
    if not known:
        return []
    series = looks.named(inputs.studies[known[0][0]].labels)
    points, means, ticks, numbers = [], [], [], {}
    aside = {one.label: 0.28 * (place - (len(series) - 1) / 2) for place, one in enumerate(series)}
    for at, (study, batch) in enumerate(known):
        tables = inputs.studies[study]
        trials, summary = (_rows(table, batch) for table in (tables.trials, tables.summary))
        small, large = figure_tables.accuracies(trials, summary, "test_accuracy")
        middle = {label: at + 0.07 + off for label, off in aside.items()}
        off = 0.4 * (small["at"] - small["series"].map(large.set_index("series")["at"]))
        points.append(small.assign(at=small["series"].map(middle) + off))
        means.append(large.assign(at=large["series"].map(middle)))
        texts = {row["series"]: sections.estimate(row) for row in records(large)}
        ticks.append("{:,}\nby {}".format(*_sizes(inputs, study, batch)))
        numbers[_name(inputs, study, batch)] = {one.label: texts[one.label] for one in series}
    table = pd.DataFrame.from_dict(numbers, orient="index").rename_axis("trained on")
    chart = charts.dots(pd.concat(points), pd.concat(means), series, ticks)
    title = "Test accuracy by number of images and size of batches"
    drawn = Figure("atlas_accuracy", title, chart, table)
    return [Block([drawn], series)]


def _known(inputs: Inputs) -> Iterator[tuple[str, int | None]]:
    """Yield each place, a study and perhaps a size of batches in it."""
    for study, tables in inputs.studies.items():
        if study.startswith(rates.TUNED) and len(inputs.rates):
            sizes = tables.summary.get("batch_size")
            yield from ((study, size) for size in ([None] if sizes is None else sizes.unique()))


def _rows(table: pd.DataFrame, batch: int | None) -> pd.DataFrame:
    return table if batch is None else table[table["batch_size"] == batch]


def _name(inputs: Inputs, study: str, batch: int | None) -> str:
    return "{:,} images, batches of {}".format(*_sizes(inputs, study, batch))


def _sizes(inputs: Inputs, study: str, batch: int | None) -> tuple[int, int]:
    own = inputs.study_params[study]
    size = own["train_size"] or inputs.dataset.training_images - inputs.params["val_size"]
    return size, batch or own["recipe"].get("batch_size", inputs.params["batch_size"])


def _estimates(inputs: Inputs, study: str, batch: int | None) -> Iterator[Row]:
    """Yield what each normalization reaches, and with which rates."""
    summary = inputs.studies[study].summary
    tried = inputs.rates[inputs.rates["study"] == study.replace(rates.TUNED, rates.SEARCH, 1)]
    for row in records(_rows(summary[summary["measure"] == "test_accuracy"], batch)):
        own = tried[tried["arm"] == row["arm"]]
        others = own.loc[own["as_well"] & ~own["chosen"], "lr"].tolist()
        ends = {own["lr"].min(), own["lr"].max()}
        chosen = own.loc[own["chosen"], "lr"].item()
        yield row | {"rate": chosen, "as_well": others, "at_the_end": chosen in ends}


def _pairs(inputs: Inputs, study: str, batch: int | None) -> Iterator[Row]:
    """Yield the findings that compare two normalizations at a place."""
    labels = inputs.studies[study].summary.set_index("variant")["label"].to_dict()
    for name, claim in inputs.claims.items():
        arms = [term.arm for term in claim.terms]
        if claim.study != study or len(arms) != 2 or name not in inputs.findings:
            continue
        first, second = arms
        there = {arm.get("batch_size") for arm in arms} == {batch}
        if there and first["variant"] != second["variant"]:
            compared = [labels[arm["variant"]] for arm in arms]
            yield {"name": name, "compared": compared, "finding": inputs.findings[name]}


def _loser(pair: Row) -> str:
    """Name the one that is shown to do worse."""
    first, second = map(str, pair["compared"])
    return second if pair["finding"]["effect"] > 0 else first


def by_either_rule(inputs: Inputs) -> list[str]:
    """Say of each claim on small batches whether the rule for the learning rate decides it."""
    said = []
    for name, finding in inputs.findings.items():
        own = inputs.findings.get(declared.twin_of(name))
        if own is None or not own["study"].startswith(rates.TUNED):
            continue
        by_batch, by_itself = finding["verdict"], own["verdict"]
        told = f"“{finding['claim']}” ({finding['source']}): {by_batch}"
        if by_batch == by_itself:
            said.append(f"{told}, whichever rule gives the rate.")
            continue
        told += f" where the rate is in proportion to the batch, {by_itself} where each has its own"
        settled = "open" not in (by_batch, by_itself)
        said.append(f"{told}{': the rule makes the difference' if settled else ''}.")
    return said
