"""`make sweep` and `make experiments`, in a copy of the project with a small budget."""

from pathlib import Path

import pytest

from normlab.errors import InputError
from tests.pipeline.copies import copy_of, git, link_environment, make, run
from tools import sweep


@pytest.mark.parametrize(
    ("sweeps", "expected"),
    [
        ("lr=0.02", [("lr=0.02",)]),
        ("l1_lambda=1e-5,1e-4", [("l1_lambda=1e-5",), ("l1_lambda=1e-4",)]),
        ("seeds=[0,1],[2]", [("seeds=[0,1]",), ("seeds=[2]",)]),
        ("a=1,2 b=3,4", [("a=1", "b=3"), ("a=1", "b=4"), ("a=2", "b=3"), ("a=2", "b=4")]),
    ],
)
def test_each_combination_of_values_is_an_experiment(
    sweeps: str, expected: list[tuple[str, ...]]
) -> None:
    assert sweep.combinations(sweeps.split()) == expected


@pytest.mark.parametrize("sweeps", ["", "lr", "lr=", "=1", "lr=1,", "lr=1, 2"])
def test_what_names_no_values_is_refused(sweeps: str) -> None:
    with pytest.raises(InputError, match=r"^S: got \S+, allowed: "):
        sweep.combinations(sweeps.split())


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("elsewhere")
def test_a_sweep_runs_all_and_says_which_failed(template: Path, tmp_path: Path) -> None:
    """Nothing of it is in the workspace, all that ended well are experiments of DVC's."""
    copy_of(template, tmp_path)
    (tmp_path / ".venv").unlink()
    link_environment(tmp_path)
    done = make(tmp_path, "sweep", "S=l1_lambda=1e-3,none,1e-2 lr=0.015")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-3:] == [
        "done    l1_lambda=1e-3 lr=0.015",
        "failed  l1_lambda=none lr=0.015",
        "done    l1_lambda=1e-2 lr=0.015",
    ]
    assert git(tmp_path, "status", "--porcelain") == ""
    table = run(tmp_path, "dvc", "exp", "show", "--csv", "--hide-workspace").stdout
    assert len(table.splitlines()) == 4
    shown = make(tmp_path, "experiments", COLUMNS="200").stdout
    (header,) = [line.split() for line in shown.splitlines() if "Experiment" in line]
    *first, loss, l1_lambda = [
        name for name in header if not name.startswith(("accuracy.", "ece."))
    ]
    assert (first, loss, l1_lambda) == (["Experiment", "Created"], "loss.bn_l1", "l1_lambda")
    assert not [name for name in header if name.endswith((".gn", ".ln"))]
