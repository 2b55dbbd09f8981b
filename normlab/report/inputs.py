"""What the page is made of: the tables of other stages and the settings they were given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.data.datasets import Dataset
from normlab.evidence.declared import Claim

Images = NDArray[np.uint8]
Row = dict[str, Any]
"""Of a table; what is not known is None."""


class StudyTables(NamedTuple):
    """The tables of a study, by the columns that the stages which write them document.

    All but the summary have the arms' labels as `series` too.
    """

    trials: pd.DataFrame
    summary: pd.DataFrame
    history: pd.DataFrame
    weights: pd.DataFrame
    """The share of each arm's weights by magnitude."""

    @property
    def labels(self) -> list[str]:
        """The arms' names for people, in order."""
        return list(dict.fromkeys(self.summary["label"]))

    def measured(self, measure: str) -> list[Row]:
        """Pick a measure of each arm."""
        return records(self.summary[self.summary["measure"] == measure])


class Inputs(NamedTuple):
    """All inputs. Tables of the main comparison have the labels as `series`, like a study's."""

    dataset: Dataset
    summary: pd.DataFrame
    comparisons: list[Row]
    test_curves: pd.DataFrame
    histories: pd.DataFrame
    parameters: pd.DataFrame
    misclassified: pd.DataFrame
    images: Mapping[int, Images]
    studies: Mapping[str, StudyTables]
    """Those that have been run."""
    findings: Mapping[str, Row]
    """By the names of their claims."""
    claims: Mapping[str, Claim]
    """All that are judged, by name."""
    rates: pd.DataFrame
    """How the learning rates that were tried do, as `rates.table` gives it; perhaps no rows."""
    recipes: list[Row]
    """How the recipes that were tried do, as `recipes.table` gives it; perhaps none."""
    reported: Mapping[str, float]
    smallest_difference: float
    """Of two normalizations' accuracies: less does not matter. A fraction."""
    params: dict[str, Any]
    study_params: dict[str, Any]
    locks: dict[str, dict[str, Any]]
    requirements: str

    @property
    def variants(self) -> dict[str, str]:
        """The variants compared, in order, and their names for people."""
        return dict(zip(self.summary["variant"], self.summary["label"], strict=True))

    @property
    def metrics(self) -> dict[str, dict[str, Row]]:
        """Rows of the summary by label and measure."""
        found: dict[str, dict[str, Row]] = {label: {} for label in self.variants.values()}
        for row in records(self.summary):
            found[row["label"]][row["measure"]] = row
        return found


def records(table: pd.DataFrame) -> list[Row]:
    """Turn a table into its rows."""
    rows = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
