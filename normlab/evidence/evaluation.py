"""Trained networks on the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from normlab import files
from normlab.data import augment
from normlab.errors import InputError
from normlab.network import engine, networks
from normlab.training import cluster

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Model:
    """The weights of a trial after an epoch, and the network they belong to."""

    variant: str
    settings: dict[str, Any]
    seed: int
    epoch: int
    weights: Arrays


class Images(NamedTuple):
    """Test images, (n, 28, 28) uint8, and their labels, (n,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class Measured(NamedTuple):
    """What a model does on the test images."""

    variant: str
    seed: int
    epoch: int
    loss: float
    """Mean cross-entropy, nats."""
    accuracy: float
    probabilities: NDArray[np.float32]
    """(n, 10), softmax of the logits."""


def check(model: Model, where: str) -> None:
    """Refuse weights that are not those of the model's network.

    Raises
    ------
    InputError
        If a tensor is missing, unknown or of another shape; `where` names the file.
    """
    network = networks.build(model.variant, **model.settings)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    got = {name: array.shape for name, array in model.weights.items()}
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            raise InputError(
                f"{where}: does not fit the {model.variant} network: {name} has shape "
                f"{got.get(name, 'missing')}, allowed: {expected.get(name, 'no such tensor')}"
            )


def measure(model: Model, test: Images) -> Measured:
    """Apply a model to the test images, in float32 on the CPU.

    By the engine, with the same bits on every machine, or by PyTorch a network that it does not
    know.

    Raises
    ------
    InputError
        If the engine does not work here or computes other numbers.
    """
    torch.set_num_threads(1)
    network = networks.build(model.variant, **model.settings)
    found = engine.plan(network, augment.SIDE)
    if isinstance(found, engine.Plan):
        engine.check()
        figures = engine.measure(found, model.weights, *test)
    else:
        network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in model.weights.items()})
        outputs = networks.logits(network, torch.from_numpy(test.images))
        labels = torch.from_numpy(test.labels).long()
        figures = (*networks.loss_and_accuracy(outputs, labels), outputs.softmax(1).numpy())
    return Measured(model.variant, model.seed, model.epoch, *figures)


def read_model(path: Path, variant: str, settings: dict[str, Any], seed: int, epoch: int) -> Model:
    """Read the weights of a trial after an epoch and check that they fit the network."""
    model = Model(variant, settings, seed, epoch, files.read_tensors(path))
    check(model, str(path))
    return model


def measure_all(models: list[Model], test: Images) -> list[Measured]:
    """Apply all models to the test images, on the cluster."""
    measured: dict[int, Measured] = {}
    tasks = [(measure, model, 1) for model in models]
    with cluster.connect(len(models)) as client, tqdm(total=len(models), unit="model") as bar:
        for which, result in cluster.run_chains(client, tasks, test):
            measured[which] = result
            bar.update()
    return [measured[which] for which in range(len(models))]


def trainable(model: Model) -> NDArray[np.float32]:
    """All trainable parameters of a model, (n,) float32."""
    network = networks.build(model.variant, **model.settings)
    return np.concatenate([model.weights[name].ravel() for name, _ in network.named_parameters()])


def small_share(model: Model, threshold: float = 1e-3) -> float:
    """Share of the trainable parameters whose absolute value is below `threshold`."""
    values = trainable(model)
    return int(np.count_nonzero(np.abs(values) < threshold)) / len(values)


def magnitudes(models: list[Model], exponents: Sequence[float]) -> NDArray[np.float64]:
    """Share of the models' trainable parameters in each range of absolute values.

    Parameters
    ----------
    models
        Models of the same network.
    exponents
        k + 1 of them, ascending: of the powers of ten between which the ranges lie, each without
        its upper end. What lies outside all is counted at the nearest end.

    Returns
    -------
    float64 (k,), which sums to 1.
    """
    values = np.abs(np.concatenate([trainable(model) for model in models]))
    # Powers in decimals, rounded once: those of a libm differ from one to the next.
    edges = [float(Decimal(10) ** Decimal(exponent)) for exponent in exponents[1:-1]]
    which = np.searchsorted(np.array(edges), values, side="right")
    return np.bincount(which, minlength=len(edges) + 1) / len(values)
