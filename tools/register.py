"""Register the claims on a study: write their digests, from which its seeds come.

    python -m tools.register groups l1

writes `registered` in the section of each study in studies/params.yaml, and gives the arms of a
study `tuned_*` the learning rates that have been chosen for them. Who commits that before the
trials are run has registered the claims.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from normlab import files, params, studies
from normlab.errors import exit_on_input_error
from normlab.evidence import declared, rates, registration

ROOT = Path(__file__).resolve().parent.parent
OWN = Path("studies/params.yaml")
RATES = Path("studies/reports/rates.csv")


def main() -> None:
    """Register the claims on the studies that the command line names."""
    parser = argparse.ArgumentParser(prog="tools.register", description=__doc__.partition("\n")[0])
    known = studies.load(ROOT / OWN)
    parser.add_argument("studies", nargs="+", choices=known, metavar="study")
    for study in parser.parse_args().studies:
        found = register(ROOT, study)
        print(f"{OWN}: {study}: registered {', '.join(found)}; commit it, then `make studies`")


def register(root: Path, study: str) -> dict[str, str]:
    """Write the digests of all claims on a study into its section; return them by claim.

    Raises
    ------
    InputError
        If a file of parameters, the claims or the table of rates cannot be read or have a value
        that is not allowed.
    """
    if study.startswith(rates.TUNED):
        _write(root / OWN, lambda values: _give_rates(values[study]["arms"], study, root))
    base, own = params.load(root / "params.yaml"), studies.load(root / OWN)
    told = declared.load(root / "studies/claims.yaml").every()
    found = registration.digests(told, study, own, base)
    _write(root / OWN, lambda values: values[study].update(registered=found))
    return found


def _give_rates(arms: dict[str, dict[str, object]], study: str, root: Path) -> None:
    table = files.read_table(root / RATES, "study arm lr chosen")
    for (name, key), rate in rates.chosen(table).items():
        if name == study and key in arms:
            arms[key]["lr"] = rate


def _write(path: Path, change: Callable[[Any], None]) -> None:
    """Change values of a file, and leave its comments and lines as they are."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 100
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(path)
    change(values)
    text = io.StringIO()
    yaml.dump(values, text)
    files.write(path, text.getvalue().encode())


if __name__ == "__main__":
    with exit_on_input_error():
        main()
