"""Trained models: read from their files, applied to test images on the cluster."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from normlab import cluster, evaluation
from normlab.evaluation import Images, Measured, Model
from stages import inputs


def read(path: Path, variant: str, settings: dict[str, Any], seed: int, epoch: int) -> Model:
    """Read the weights of a trial after an epoch and check that they fit the network."""
    model = Model(variant, settings, seed, epoch, inputs.tensors(path))
    evaluation.check(model, str(path))
    return model


def measure(models: list[Model], test: Images) -> list[Measured]:
    """Apply all models to the test images, on the cluster."""
    measured: dict[int, Measured] = {}
    tasks = [(evaluation.measure, model, 1) for model in models]
    with cluster.connect(len(models)) as client, tqdm(total=len(models), unit="model") as bar:
        for which, result in cluster.iterate(client, tasks, test):
            measured[which] = result
            bar.update()
    return [measured[which] for which in range(len(models))]
