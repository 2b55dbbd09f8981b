"""Stage `choose`: the learning rates that do best on validation images, for the studies `tuned_*`.

Paths are from `studies/`, a DVC project of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from normlab import files, studies
from normlab.errors import InputError
from normlab.evidence import rates
from normlab.studies import Studies

OWN = Path("params.yaml")
TABLES = Path("reports")
RATES = TABLES / "rates.csv"

HISTORY = "study variant arm lr seed epoch val_accuracy"
"""Columns that are needed."""


def main() -> None:
    """Write how all rates do, and refuse studies that use others than those chosen."""
    own = studies.load(OWN)
    searches = [name for name in own if name.startswith(rates.SEARCH)]
    for name in searches:
        if (seeds := own[name].seeds) < 2:
            raise InputError(f"{OWN}: {name}.seeds: got {seeds}, allowed: 2 or more")
    paths = [TABLES / f"{name}_history.csv" for name in searches]
    found = pd.concat([rates.table(files.read_table(path, HISTORY)) for path in paths])
    files.write_table(RATES, found)
    if wrong := list(mismatches(found, own)):
        raise InputError("\n".join(f"{OWN}: {fault}" for fault in wrong))


def mismatches(found: pd.DataFrame, own: Studies) -> Iterator[str]:
    """Say of each arm that has another rate than was chosen for it, what it has to be."""
    for (study, key), rate in rates.chosen(found).items():
        arm = own[study].arms.get(key) if study in own else None
        got = arm.given().get("lr") if arm else None
        if got != rate:
            yield (
                f"{study}.arms.{key}.lr: got {got}, allowed: {rate:g}, as validation images chose "
                f"(make register STUDIES={study} writes it)"
            )
