"""Stage `choose_recipe`: whether another recipe than the pipeline's does better.

Paths are from `studies/`, a DVC project of its own.
"""

import io
from pathlib import Path

import pandas as pd

from normlab import files, params
from normlab.errors import InputError
from normlab.evidence import recipes

CLAIMS = Path("claims.yaml")
TABLES = Path("reports")
RECIPES = TABLES / f"{recipes.STUDY}.csv"

HISTORY = "variant arm seed epoch val_accuracy"
"""Columns that are needed."""


def main() -> None:
    """Write how all recipes do that were tried, and which is chosen."""
    matters = params.mapping(CLAIMS).get("smallest_difference")
    if not isinstance(matters, float) or not 0 < matters < 1:
        raise InputError(f"{CLAIMS}: smallest_difference: got {matters}, allowed: between 0 and 1")
    source = TABLES / f"{recipes.STUDY}_history.csv"
    text = files.read_text(source)
    try:
        # Not by `read_table`: what an arm leaves as it is, such as lr, is empty there.
        history = pd.read_csv(io.StringIO(text), usecols=HISTORY.split())
        found = recipes.table(history, matters)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    files.write_table(RECIPES, found)
