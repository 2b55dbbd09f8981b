"""The page of the committed tables, which the tests of the report look at."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from normlab import files
from normlab.data import datasets
from normlab.report import charts, figure_tables
from normlab.report import page as report
from normlab.report.inputs import Inputs
from stages import report as stage

ROOT = Path(__file__).parents[2]
BLANK = np.arange(784, dtype=np.uint8).reshape(28, 28)


@pytest.fixture(scope="session", autouse=True)
def _each_chart_drawn_once() -> Iterator[None]:
    """Pages are made many times here, and half of that is to draw the same pictures."""
    draw = charts.picture

    @cache
    def drawn(spec: str) -> str:
        return draw(json.loads(spec))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(charts, "picture", lambda spec: drawn(json.dumps(spec)))
        yield


def read() -> Inputs:
    """Read the committed inputs. The images are in DVC's cache alone: others take their places."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(files, "read_images", lambda *_: dict.fromkeys(range(10_000), BLANK))
            patched.setattr(datasets, "read", lambda _: datasets.MNIST)
            return stage.read()
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def inputs() -> Inputs:
    return read()


@pytest.fixture(scope="session")
def page(inputs: Inputs) -> str:
    return report.render(inputs)


def all_missed(inputs: Inputs, count: int) -> pd.DataFrame:
    """As many images as that, misread by all models."""
    trials = inputs.test_curves[["series", "seed"]].drop_duplicates().to_dict("records")
    wrong = {"true": 4, "predicted": 9, "probability": 0.9}
    rows = [one | wrong | {"index": index} for index in range(count) for one in trials]
    return pd.DataFrame(rows)


def one_epoch(inputs: Inputs) -> Inputs:
    """What a single epoch leaves: one point per curve, wide intervals, many errors."""
    first: dict[str, Any] = {
        name: getattr(inputs, name).query("epoch == 1") for name in ("test_curves", "histories")
    }
    summary = inputs.summary.copy()
    accuracies = summary["measure"] == "accuracy"
    summary.loc[accuracies, ["mean", "low", "high"]] = [0.2, -0.73, 1.17]
    missed = all_missed(inputs, 2_475)
    bounded = figure_tables.bounded(summary)
    return inputs._replace(**first, summary=bounded, misclassified=missed)
