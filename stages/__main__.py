"""Run a stage: `python -m stages NAME [ARGUMENT ...]`, as `dvc.yaml` has it."""

import os
import sys
from importlib import import_module

from normlab.errors import exit_on_input_error

# What the workers of a stage have imported before their first task.
WORKERS_IMPORT = {
    "train": "normlab.training.trials",
    "study": "normlab.training.trials",
    "evaluate": "normlab.evidence.evaluation",
    "score": "normlab.evidence.evaluation",
}


def main(name: str, *arguments: str) -> None:
    """Import and run a stage."""
    if name in WORKERS_IMPORT:
        from normlab.training import cluster

        # First of all, since importing torch takes most of a stage's start: the process that
        # workers are forked from does it while this one does.
        cluster.start_forkserver(WORKERS_IMPORT[name])
    import_module(f"stages.{name}").main(*arguments)


def way_back() -> str:
    """Say how to get back what DVC has removed before it ran this, if it did."""
    stage = os.environ.get("DVC_STAGE")
    return f"what was there before: dvc checkout {stage} && git checkout reports" if stage else ""


if __name__ == "__main__":
    with exit_on_input_error(way_back()):
        main(*sys.argv[1:])
