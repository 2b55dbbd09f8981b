"""What the page is made of: the tables of other stages and the settings they were given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.data.datasets import Dataset

Images = NDArray[np.uint8]


class StudyTables(NamedTuple):
    """The tables of a study. All but the summary have the labels of the arms as `series`."""

    trials: pd.DataFrame
    summary: pd.DataFrame
    history: pd.DataFrame
    weights: pd.DataFrame | None
    """The share of each arm's weights by magnitude, where that is of interest."""

    @property
    def labels(self) -> list[str]:
        """The arms' names for people, in order."""
        return list(dict.fromkeys(self.summary["label"]))

    def measured(self, measure: str) -> list[dict[str, Any]]:
        """Pick a measure of each arm: rows of the summary."""
        return records(self.summary[self.summary["measure"] == measure])


class Inputs(NamedTuple):
    """All inputs; tables are as the stages that write them document them."""

    dataset: Dataset
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    test_curves: pd.DataFrame
    histories: pd.DataFrame
    parameters: pd.DataFrame
    misclassified: pd.DataFrame
    images: Mapping[int, Images]
    studies: Mapping[str, StudyTables]
    """Those that have been run."""
    findings: pd.DataFrame
    reported: Mapping[str, float]
    params: dict[str, Any]
    study_params: dict[str, Any]
    locks: dict[str, dict[str, Any]]
    requirements: str

    @property
    def labels(self) -> dict[str, str]:
        """The variants compared, in order, and their names for people."""
        return dict(zip(self.summary["variant"], self.summary["label"], strict=True))

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Rows of the summary by label and measure."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in records(self.summary):
            found.setdefault(row["label"], {})[row["measure"]] = row
        return found

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The comparisons of two variants each, in order."""
        return records(self.comparisons)

    @property
    def judged(self) -> dict[str, dict[str, Any]]:
        """The findings by the names of their claims."""
        return {row["name"]: row for row in records(self.findings)}

    @property
    def final(self) -> pd.DataFrame:
        """Test accuracy of every trial after its last epoch."""
        last = self.test_curves.groupby("variant")["epoch"].transform("max")
        return self.test_curves[self.test_curves["epoch"] == last]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dictionaries; what is not known is None."""
    rows = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
