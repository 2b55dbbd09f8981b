from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from normlab.data import validation
from normlab.data.augment import Ranges
from normlab.data.validation import Part
from normlab.network import networks
from normlab.training.recipe import Data, Images, Recipe
from tests import clusters

# The same examples every time, and no verdict on a machine that happens to be busy.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

NORM_PARAMS: dict[str, dict[str, Any]] = {
    "bn_l1": {},
    "gn": {"gn_groups": 4},
    "ln": {"ln_affine": "elementwise"},
}
VARIANTS = list(networks.VARIANTS)
AXES = ["chw", *["last"] * 6]
PUBLISHED: list[tuple[str, dict[str, Any]]] = [
    ("bn_l1", {"conv3_padding": 1}),
    ("gn", {"gn_groups": [3, 4, 2, 3, 2, 2, 2], "conv3_padding": 1}),
    *(
        ("ln", NORM_PARAMS["ln"] | {"ln_axes": axes, "norm_place": place, "conv3_padding": 1})
        for axes in (AXES, "last")
        for place in ("before_relu", "after_relu")
    ),
]
"""The networks of the reference's published notebook, and layer norm on the other side of ReLU."""
PART = Part(val_size=40)
# Files that take longest: they begin first, or else one process would end long after the others.
LONGEST = (
    "test_emulated.py",
    "test_make_it_yours.py",
    "test_studies.py",
    "test_sharing.py",
    "test_verify.py",
    "test_ci.py",
    "test_pipeline.py",
    "test_experiments.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; each process of `make test` takes the next one in order."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def make_recipe(variant: str = "gn", **changes: object) -> Recipe:
    fields = {
        "variant": variant,
        "norm_params": NORM_PARAMS[variant],
        "epochs": 2,
        "batch_size": 32,
        "lr": 0.015,
        "momentum": 0.9,
        "nesterov": True,
        "lr_schedule": "cosine",
        "lr_step_epochs": 9,
        "lr_step_factor": 0.1,
        "l1_lambda": 1e-4 if variant == "bn_l1" else None,
        "augmentation": Ranges(rotation=7, translation=0.1, scale=(0.85, 1.15), shear=5),
        "device": "cpu",
        "precision": "float32",
    }
    return Recipe(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def noise() -> Data:
    rng = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)

    def labels(count: int) -> np.ndarray:
        return rng.integers(0, 10, count, dtype=np.uint8)

    return Data(images(100), labels(100), images(40), labels(40))


@pytest.fixture(scope="session")
def noise_split(noise: Data) -> Images:
    """A training split of which `PART` is `noise`."""
    train, val = validation.train_val_split(140, *PART)
    whole = Images(np.empty((140, 28, 28), np.uint8), np.empty(140, np.uint8))
    whole.images[train], whole.labels[train] = noise.train_images, noise.train_labels
    whole.images[val], whole.labels[val] = noise.val_images, noise.val_labels
    return whole


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and a worker elsewhere."""
    with clusters.started(clusters.TOGETHER, folder=tmp_path_factory.mktemp("elsewhere")) as found:
        yield found[1]


@pytest.fixture
def elsewhere(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages use a scheduler that is up already: less to wait for, and the same results."""
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", scheduler)


@pytest.fixture(scope="module")
def all_elsewhere(scheduler: str) -> Iterator[None]:
    """Let all of a file's stages do so, those of what its tests share too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
        yield
