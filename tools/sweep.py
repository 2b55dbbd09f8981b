"""Run an experiment for each value of a parameter, or for each combination of several parameters'.

    python -m tools.sweep l1_lambda=1e-5,1e-4,1e-3
    python -m tools.sweep gn_groups=1,2,4 seeds=[0,1],[2,3]

Each is one `dvc exp run --temp` after the other, in a folder of its own: the workspace stays as it
is, and `dvc exp show` lists them with all others. One that fails does not keep the rest from
running; the exit code is 1 then.

`dvc exp run --queue` and `dvc queue start` do the same by a worker of Celery's. It dies if it reads
a message that is not all there yet (https://github.com/celery/kombu/issues/1551), and the rest of
the queue waits until somebody looks.
"""

import itertools
import re
import sys
from collections.abc import Sequence

from normlab.errors import InputError, exit_on_input_error
from tools import dvc

ALLOWED = "allowed: parameters and values as in l1_lambda=1e-5,1e-4,1e-3 gn_groups=1,2"
BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")  # not the commas within a list


def main() -> None:
    """Run what the command line asks for; exit with 1 if an experiment fails."""
    planned = combinations(" ".join(sys.argv[1:]).split())
    lines = []
    for number, values in enumerate(planned, start=1):
        print(f"\n{number} of {len(planned)}: {' '.join(values)}\n", flush=True)
        lines.append(f"{'failed' if run(values) else 'done':<6}  {' '.join(values)}")
    print("", *lines, sep="\n")
    sys.exit(any(line.startswith("failed") for line in lines))


def combinations(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """Choose a value of each parameter in every possible way, the last one's changing fastest.

    Raises
    ------
    InputError
        If there is no parameter, or one without a value.
    """
    choices = []
    for sweep in sweeps:
        name, _, values = sweep.partition("=")
        each = BETWEEN_VALUES.split(values)
        if not name or "" in each:
            raise InputError(f"S: got {sweep}, {ALLOWED}")
        choices.append([f"{name}={value}" for value in each])
    if not choices:
        raise InputError(f"S: got nothing, {ALLOWED}")
    return list(itertools.product(*choices))


def run(values: Sequence[str]) -> int:
    """Run one experiment and return its exit status."""
    options = [word for value in values for word in ("-S", value)]
    return dvc.run("exp", "run", "--temp", *options)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
