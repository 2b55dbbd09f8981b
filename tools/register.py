"""Register the claims on a study: write their digests, from which its seeds come.

    python -m tools.register groups l1

writes `registered` in the section of each study in studies/params.yaml. Who commits that before the
trials are run has registered the claims.
"""

import argparse
import io
from pathlib import Path

from ruamel.yaml import YAML

from normlab import files, params, studies
from normlab.errors import exit_on_input_error
from normlab.evidence import declared, registration

ROOT = Path(__file__).resolve().parent.parent
OWN = Path("studies/params.yaml")


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
        If a file of parameters or the claims cannot be read or have a value that is not allowed.
    """
    base, own = params.load(root / "params.yaml"), studies.load(root / OWN)
    told = declared.load(root / "studies/claims.yaml").with_twins()
    found = registration.digests(told, study, own, base)
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 100
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(root / OWN)
    values[study]["registered"] = found
    text = io.StringIO()
    yaml.dump(values, text)
    files.write(root / OWN, text.getvalue().encode())
    return found


if __name__ == "__main__":
    with exit_on_input_error():
        main()
