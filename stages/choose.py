"""Stage `choose`: the learning rates that do best on validation images.

Paths are from `studies/`, a DVC project of its own.
"""

from pathlib import Path

import pandas as pd

from normlab import files, studies
from normlab.errors import InputError
from normlab.evidence import rates

OWN = Path("params.yaml")
TABLES = Path("reports")
RATES = TABLES / "rates.csv"

HISTORY = "study variant arm lr seed epoch val_accuracy"
"""Columns that are needed."""


def main() -> None:
    """Write how all rates do that were tried."""
    own = studies.load(OWN)
    searches = [name for name in own if name.startswith(rates.SEARCH)]
    for name in searches:
        if (seeds := own[name].seeds) < 2:
            raise InputError(f"{OWN}: {name}.seeds: got {seeds}, allowed: 2 or more")
    paths = [TABLES / f"{name}_history.csv" for name in searches]
    found = pd.concat([rates.table(files.read_table(path, HISTORY)) for path in paths])
    files.write_table(RATES, found)
