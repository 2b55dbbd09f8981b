"""Trained networks on images that they have not learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from normlab import files
from normlab.arms import Arm
from normlab.data import validation
from normlab.data.validation import Part
from normlab.errors import InputError
from normlab.network import engine, known_answer, networks, plans
from normlab.network.architecture import REFERENCE, Architecture
from normlab.training import chains, cluster
from normlab.training.chains import Step
from normlab.training.crew import Crew, Kind


@dataclass(frozen=True)
class TrainedModel:
    """The weights of a trial after an epoch, and the network they belong to."""

    arm: Arm
    norm_params: dict[str, Any]
    """Of the variant's normalization, and what else `networks.build` is told."""
    seed: int
    epoch: int
    weights: engine.Arrays
    architecture: Architecture = REFERENCE

    def network(self) -> torch.nn.Sequential:
        """Build its network, with other weights."""
        return networks.build(self.arm.variant, self.architecture, **self.norm_params)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that name its trial in a table: the arm's, and seed."""
        return self.arm.columns | {"seed": self.seed}


class LabelledImages(NamedTuple):
    """Images, (n, s, s) uint8, and their labels, (n,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class Scores(NamedTuple):
    """What a model does on some images."""

    loss: float
    """Mean cross-entropy, nats."""
    accuracy: float
    probabilities: NDArray[np.float32]
    """(n, classes), softmax of the logits."""


def read_model(
    path: Path,
    arm: Arm,
    norm_params: dict[str, Any],
    architecture: Architecture,
    trial: tuple[int, int, str],
) -> TrainedModel:
    """Read the weights of a trial after an epoch.

    Parameters
    ----------
    path
        Of the file.
    arm, norm_params, architecture
        Which network they are of.
    trial
        Seed, epoch, and the `engine.fingerprint` that training has recorded.

    Raises
    ------
    InputError
        If the file cannot be read, its weights are not those of the arm's network, or have another
        fingerprint.
    """
    seed, epoch, digest = trial
    weights = files.read_tensors(path)
    model = TrainedModel(arm, norm_params, seed, epoch, weights, architecture)
    check(model, str(path))
    if (got := engine.fingerprint(model.weights)) != digest:
        raise InputError(f"{path}: got weights {got}, allowed: {digest}, as the history has it")
    return model


def check(model: TrainedModel, where: str) -> None:
    """Refuse weights that are not those of the model's network.

    Raises
    ------
    InputError
        If a tensor is missing, unknown or of another shape; `where` names the file.
    """
    expected = {n: tuple(tensor.shape) for n, tensor in model.network().state_dict().items()}
    got = {name: array.shape for name, array in model.weights.items()}
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            raise InputError(
                f"{where}: does not fit the {model.arm.variant} network: {name} has shape "
                f"{got.get(name, 'missing')}, allowed: {expected.get(name, 'no such tensor')}"
            )


def score(model: TrainedModel, test: LabelledImages) -> Scores:
    """Apply a model to images, in float32 on the CPU.

    By the engine, with the same bits on every machine, or by PyTorch a network that it does not
    know.

    Raises
    ------
    InputError
        If the engine does not work here or computes other numbers.
    """
    torch.set_num_threads(1)
    network = model.network()
    found = plans.plan(network, model.architecture)
    if isinstance(found, plans.Plan):
        known_answer.check(found)
        return Scores(*engine.measure(found, model.weights, *test))
    network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in model.weights.items()})
    outputs = networks.logits(network, torch.from_numpy(test.images), of=model.architecture)
    labels = torch.from_numpy(test.labels).long()
    return Scores(*networks.loss_and_accuracy(outputs, labels), outputs.softmax(1).numpy())


def score_all(models: Sequence[TrainedModel], test: LabelledImages) -> list[Scores]:
    """Apply all models to images, on the cluster; scores come in the order of the models."""
    return _on_cluster(models, [score] * len(models), test)


def score_apart(
    models: Sequence[TrainedModel],
    parts: Sequence[Part],
    test: LabelledImages,
    train: LabelledImages,
    *,
    seen: bool,
) -> list[dict[str, float]]:
    """Apply models to each kind of images apart, on the cluster.

    Parameters
    ----------
    models
        In any order, which is that of the scores.
    parts
        Of each model: which training images it has learnt from.
    test, train
        Both splits.
    seen
        Whether to apply them to the images that they have learnt from too.

    Returns
    -------
    Of each model test_loss and test_accuracy, unseen_loss and unseen_accuracy (of the training
    split, images that it has not learnt from), and perhaps seen_loss and seen_accuracy. Losses are
    in nats.
    """
    steps = {part: partial(_score_apart, part, seen) for part in parts}
    return _on_cluster(models, [steps[part] for part in parts], (test, train))


def _score_apart(
    part: Part, seen: bool, model: TrainedModel, images: tuple[LabelledImages, LabelledImages]
) -> dict[str, float]:
    test, split = images
    learnt, _ = validation.train_val_split(len(split.labels), *part)
    others = np.setdiff1d(np.arange(len(split.labels)), learnt)
    kinds = {"test": test, "unseen": LabelledImages(*(array[others] for array in split))}
    if seen:
        kinds["seen"] = LabelledImages(*(array[learnt] for array in split))
    found = {}
    for kind, own in kinds.items():
        found[f"{kind}_loss"], found[f"{kind}_accuracy"], _ = score(model, own)
    return found


def _on_cluster(models: Sequence[TrainedModel], steps: Sequence[Step], images: Any) -> list[Any]:
    """Take a step with each model and the images; return what comes of it, in order."""
    found: dict[int, Any] = {}
    tasks = [(step, model, 1) for step, model in zip(steps, models, strict=True)]
    names = [f"{m.arm.name} seed {m.seed} epoch {m.epoch}" for m in models]
    distinct = {(m.arm.variant, str(m.norm_params)): m for m in models}.values()
    with cluster.connect(len(models)) as client, tqdm(total=len(models), unit="model") as bar:
        workers = Crew(client, partial(_kind, [(m.network(), m.architecture) for m in distinct]))
        for which, scores in chains.run_chains(client, tasks, images, workers, names):
            found[which] = scores
            bar.update()
    return [found[which] for which in range(len(models))]


def _kind(model_networks: Sequence[tuple[torch.nn.Sequential, Architecture]]) -> Kind:
    """Say what applies the networks on the machine this runs on."""
    found = [plans.plan(*one) for one in model_networks]
    arithmetic = [
        f"engine {known_answer.check(plan)}"
        if isinstance(plan, plans.Plan)
        else f"PyTorch {torch.__version__}"
        for plan in found
    ]
    return Kind(tuple(dict.fromkeys(arithmetic)))


def count_parameters(model: TrainedModel) -> int:
    """Trainable parameters of a model."""
    return sum(networks.parameters_by_layer(model.network()).values())


def trainable(model: TrainedModel) -> NDArray[np.float32]:
    """All trainable parameters of a model, (n,) float32."""
    names = [name for name, _ in model.network().named_parameters()]
    return np.concatenate([model.weights[name].ravel() for name in names])


def small_share(model: TrainedModel, threshold: float = 1e-3) -> float:
    """Share of the trainable parameters whose absolute value is below `threshold`."""
    values = trainable(model)
    return int(np.count_nonzero(np.abs(values) < threshold)) / len(values)


def magnitudes(models: Sequence[TrainedModel], exponents: Sequence[float]) -> NDArray[np.float64]:
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
