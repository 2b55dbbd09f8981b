"""What a batch takes of memory, as it is and as it is told; and how a trial ends that diverges."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed import Client

from normlab.arms import MAIN, Arm
from normlab.errors import InputError
from normlab.training import cluster, limits, pytorch, trial, trials
from normlab.training.recipe import Data, Images, State
from tests.conftest import PART, VARIANTS, make_recipe
from tests.pipeline.conftest import IN_PROCESS
from tests.training.test_trial import without_engine

GIB = 2**30
PEAK = """
import sys
from pathlib import Path
import numpy as np
from normlab.network import plans
from normlab.training import limits, trial
from normlab.training.recipe import Data
from tests.conftest import make_recipe
if sys.argv[2] == "pytorch":
    plans.plan = lambda *_: plans.Unsupported("what it is told not to")
def peak():  # not getrusage's, which begins with that of the process it was forked from
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
count = 1000
zeros = np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.uint8)
recipe = make_recipe(sys.argv[1], batch_size=count)
start = trial.start(recipe, 0)
trial.train_epoch(make_recipe(sys.argv[1], batch_size=1), start, Data(*[a[:16] for a in zeros] * 2))
before = peak()
trial.train_epoch(recipe, start, Data(*zeros, *[a[:16] for a in zeros]))
print(peak() - before, limits.memory(recipe, count))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("trained_by", ["engine", "pytorch"])
def test_a_batch_takes_what_is_said_of_it(trained_by: str) -> None:
    command = [sys.executable, "-c", PEAK, "bn_l1", trained_by]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    taken, said = map(int, printed.split())
    assert 0.75 < taken / said < 1.25


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(sizes: list[int], count: int, at_once: int) -> str | None:
        recipes = {size: make_recipe("bn_l1", batch_size=size) for size in sizes}
        return limits.what_does_not_fit([recipes[size] for size in sizes], count, at_once)

    monkeypatch.setattr(limits, "room", lambda: 8 * GIB)
    assert told([55_000, 55_000], 55_000, at_once=1) is None
    assert told([128, 55_000, 128], 55_000, at_once=2) is None
    assert told([55_000] * 3, 20_000, at_once=3) is None
    said, _, most = (told([128, 55_000, 55_000], 55_000, at_once=2) or "").rpartition(" ")
    assert said == (
        "batch_size: got 55000, which takes 7.0 GiB in each of 2 trials at a time, and 8.0 GiB are "
        "free, allowed here: at most"
    )
    assert told([int(most)] * 2, 55_000, at_once=2) is None
    assert told([int(most) + 16] * 2, 55_000, at_once=2)  # a block of images more


def test_nothing_is_trained_that_does_not_fit(
    noise_split: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))
    monkeypatch.setattr(limits, "room", lambda: 2**20)
    planned = [trials.Trial(Arm(MAIN, "gn", {}), make_recipe("gn"), seed, PART) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"^batch_size: got 32, which takes 0\.0 GiB in each of "):
        trials.run(planned, noise_split, tmp_path / "gn.csv", tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["gn", "ln"])
def test_only_batch_norm_needs_all_of_a_batch_at_once(variant: str) -> None:
    small, large = (make_recipe(variant, batch_size=size) for size in (16, 60_000))
    assert limits.memory(small, 60_000) == limits.memory(large, 60_000) < 2**24


def test_a_gpus_memory_is_not_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert limits.memory(make_recipe(device="cuda", precision="auto"), 60_000) == 0


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_memory_that_is_not_given_is_one_line(
    error: type[Exception], noise: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object) -> None:
        raise error("3 lines\nof\nadvice")

    without_engine(monkeypatch)
    monkeypatch.setattr(pytorch, "train_epoch", starved)
    recipe = make_recipe("gn")
    with pytest.raises(InputError, match=r"^gn, seed 4, epoch 1: not enough memory .* is 32\)$"):
        trial.train_epoch(recipe, trial.start(recipe, 4), noise)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_that_diverged_though_finite_is_named(variant: str, noise: Data) -> None:
    recipe = make_recipe(variant, lr=3.0, momentum=0.99, lr_schedule="constant", epochs=3)
    state = trial.start(recipe, 5)
    for _ in range(recipe.epochs):
        state = trial.train_epoch(recipe, state, noise)
    line = trial.divergence(recipe, state)
    assert line is not None
    assert line.startswith(f"{variant}, seed 5: diverged: its loss ends at ")
    assert line.endswith(
        "above the 2.30 of guessing; most likely the learning rate is too high (lr is 3)"
    )


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "diverged"),
    [
        (2.3014, 2.3005, False),  # instance norm, which learns nothing
        (2.31, 2.32, False),
        (0.7, 0.1, False),
        (3.0, 2.0, True),
        (0.5, 2.6, True),
        (3e17, 3e17, True),
    ],
)
def test_a_network_that_guesses_has_not_diverged(
    train_loss: float, val_loss: float, diverged: bool
) -> None:
    state = State(0, 2, {}, {}, {"train_loss": train_loss, "val_loss": val_loss})
    assert (trial.divergence(make_recipe(), state) is not None) == diverged
