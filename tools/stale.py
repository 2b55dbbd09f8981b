"""Which stages of the studies the report shows as they were, though something they read is new.

`make report` runs the pipeline where it has changed, and never the studies, which take an hour or
two: it ends with this.
"""

import json
import subprocess
import sys
from typing import Any

from normlab.errors import InputError, exit_on_input_error


def main() -> None:
    """Print one line."""
    found = stale()
    said = f"not rerun, though changed: {', '.join(found)}; `make studies` does" if found else ""
    print(f"studies: {said or 'as they were, nothing to rerun'}")


def stale() -> list[str]:
    """Name the stages whose command, parameters, code or inputs are others; absent is not another.

    What reads the outputs of these is not among them: whether those change, only a run can tell.
    """
    command = [sys.executable, "-m", "dvc", "--cd", "studies", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise InputError(f"studies: dvc status: {' '.join(done.stderr.split())}")
    status: dict[str, list[Any]] = json.loads(done.stdout)
    return [name for name, changes in status.items() if any(map(is_new, changes))]


def is_new(change: Any) -> bool:
    """Tell a change of DVC's status that another machine would have too."""
    if change == "changed command":
        return True
    deps = change.get("changed deps", {}) if isinstance(change, dict) else {}
    return any(state != "deleted" for state in deps.values())


if __name__ == "__main__":
    with exit_on_input_error():
        main()
