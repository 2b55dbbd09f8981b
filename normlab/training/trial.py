"""One trial: a variant trained with one seed, an epoch at a time.

An epoch is a pure function from state to state: all it draws comes from generators seeded with
(seed, purpose, epoch), so it does not matter where it runs, what runs beside it, or whether the
run was interrupted in between.
"""

import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.sgd import sgd

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, engine, networks

INITIAL, ORDER, AUGMENTATION = range(3)
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Recipe:
    """All that decides how a variant's trials go, except the seed and the data."""

    variant: str
    settings: dict[str, Any]
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    lr_schedule: str
    lr_step_epochs: int
    lr_step_factor: float
    l1_lambda: float | None
    augmentation: augment.Ranges
    device: str
    precision: str


class Data(NamedTuple):
    """Training and validation images, (n, 28, 28) uint8, and their labels, (n,) uint8."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    val_images: NDArray[np.uint8]
    val_labels: NDArray[np.uint8]


@dataclass(frozen=True)
class State:
    """A trial after `epoch` epochs: all that the next epoch needs, and this one's history row."""

    seed: int
    epoch: int
    weights: Arrays
    momentum: Arrays
    row: dict[str, Any]


class Machine(NamedTuple):
    """What a recipe's trials are computed by."""

    device: torch.device
    dtype: torch.dtype
    plan: engine.Plan | None
    """The engine's, or None where PyTorch trains."""
    name: str
    arithmetic: str
    """What decides the bits, beside recipe and data: one word wherever the engine trains."""


def resolve(recipe: Recipe) -> Machine:
    """Choose what trains a recipe's trials on the machine this runs on.

    On a CPU in float32 that is the engine, for networks that it knows; its results are the same
    everywhere. All else is PyTorch's, and belongs to the device and the version.

    Raises
    ------
    InputError
        If `device` or `precision` names what this machine does not have, or the engine does not
        work here or computes other numbers.
    """
    device, dtype = _device(recipe.device, recipe.precision)
    kind = f"{device}, {str(dtype).removeprefix('torch.')}"
    why = "PyTorch"
    if device.type == "cpu" and dtype == torch.float32:
        network = networks.build(recipe.variant, **recipe.settings)
        found = engine.plan(network, augment.SIDE)
        if isinstance(found, engine.Plan):
            engine.check()
            name = f"{kind}, the engine for {compiled.processor().name}"
            return Machine(device, dtype, found, name, f"engine {engine.ARITHMETIC}")
        why = f"PyTorch, since the engine does not know {found.reason}"
    name = f"{kind}, {why}: results belong to this machine"
    return Machine(device, dtype, None, name, f"{kind}, PyTorch {torch.__version__}")


def _device(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: got cuda, but there is no CUDA GPU here, allowed: auto or cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    if precision == "bfloat16" and not native:
        raise InputError(
            "precision: got bfloat16, which this device does not compute natively, "
            "allowed: auto or float32"
        )
    # On a CPU the engine in float32 is faster than PyTorch in bfloat16.
    use_bfloat16 = precision == "bfloat16" or (on_gpu and native and precision == "auto")
    return (
        torch.device("cuda" if on_gpu else "cpu"),
        torch.bfloat16 if use_bfloat16 else torch.float32,
    )


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1."""
    done, rate = epoch - 1, recipe.lr
    if recipe.lr_schedule == "step":
        for _ in range(done // recipe.lr_step_epochs):
            rate *= recipe.lr_step_factor
    if recipe.lr_schedule == "cosine":
        _, cos = augment.sin_cos(180 * done / recipe.epochs)
        rate *= (1 + float(cos)) / 2
    return rate


def start(recipe: Recipe, seed: int) -> State:
    """State of a trial before its first epoch; the same seed starts all variants alike."""
    network = networks.build(recipe.variant, **recipe.settings)
    networks.initialize(network, _rng(seed, INITIAL))
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    return State(seed, 0, _arrays(network.state_dict()), _arrays(velocity), {})


def train_epoch(recipe: Recipe, state: State, data: Data) -> State:
    """Train for one epoch and measure the result on the validation images.

    The training loss and accuracy are means over the epoch's augmented images as they were
    learned from; no loss includes the L1 penalty.

    Raises
    ------
    InputError
        If the loss or a weight is no longer finite.
    """
    torch.set_num_threads(1)
    machine = resolve(recipe)
    epoch, count = state.epoch + 1, len(data.train_labels)
    lr = learning_rate(recipe, epoch)
    order = _rng(state.seed, ORDER, epoch).permutation(count)
    maps = augment.draw(_rng(state.seed, AUGMENTATION, epoch), count, recipe.augmentation)
    learn = _by_torch if machine.plan is None else _by_engine
    after = learn(recipe, machine, lr, state, data, order, maps)
    finite = all(np.isfinite(array).all() for array in after.weights.values())
    if not (finite and math.isfinite(after.train_loss) and math.isfinite(after.val_loss)):
        raise InputError(
            f"{recipe.variant}, seed {state.seed}, epoch {epoch}: the loss is no longer finite; "
            f"most likely the learning rate is too high (lr is {recipe.lr:g})"
        )
    row: dict[str, Any] = {
        "seed": state.seed,
        "epoch": epoch,
        "lr": lr,
        "train_loss": after.train_loss,
        "train_accuracy": after.train_accuracy,
        "val_loss": after.val_loss,
        "val_accuracy": after.val_accuracy,
    }
    if recipe.l1_lambda is not None:
        penalized = [after.weights[name] for name in after.momentum]
        row["l1_penalty"] = recipe.l1_lambda * l1_norm(penalized)
    row["weights"] = engine.fingerprint(after.weights)
    return State(state.seed, epoch, after.weights, after.momentum, row)


class Epoch(NamedTuple):
    """What an epoch leaves: weights and momentum by name, and its measures."""

    weights: Arrays
    momentum: Arrays
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def _by_engine(
    recipe: Recipe,
    machine: Machine,
    lr: float,
    state: State,
    data: Data,
    order: NDArray[np.int64],
    maps: NDArray[np.float32],
) -> Epoch:
    assert machine.plan is not None
    step = engine.Recipe(
        recipe.batch_size, lr, recipe.momentum, recipe.nesterov, recipe.l1_lambda or 0.0
    )
    examples = engine.Examples(data.train_images, data.train_labels, order, maps)
    weights, momentum, loss, correct = engine.train(
        machine.plan, state.weights, state.momentum, step, examples
    )
    val_loss, val_accuracy, _ = engine.measure(
        machine.plan, weights, data.val_images, data.val_labels
    )
    count = len(order)
    return Epoch(weights, momentum, loss / count, correct / count, val_loss, val_accuracy)


def _by_torch(
    recipe: Recipe,
    machine: Machine,
    lr: float,
    state: State,
    data: Data,
    order: NDArray[np.int64],
    maps: NDArray[np.float32],
) -> Epoch:
    device = machine.device
    if device.type == "cuda":
        # On a CPU all that is used here is deterministic, and the switch costs time.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else PyTorch refuses
        torch.use_deterministic_algorithms(True)
    network = networks.build(recipe.variant, **recipe.settings)
    network.load_state_dict(_tensors(state.weights))
    network.to(device).train()
    parameters = list(network.parameters())
    saved = _tensors(state.momentum)
    momentum = {name: saved[name].to(device) for name, _ in network.named_parameters()}
    images = torch.from_numpy(augment.pad(data.train_images)).to(device)
    labels = torch.from_numpy(data.train_labels).long().to(device)
    positions = torch.from_numpy(augment.grid()).to(device)
    chosen_of = torch.from_numpy(order).to(device).split(recipe.batch_size)
    maps_of = torch.from_numpy(maps).to(device).split(recipe.batch_size)

    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for chosen, affine in zip(chosen_of, maps_of, strict=True):
        sources = augment.source_pixels(affine, positions).long()
        batch = networks.standardize(images[chosen].gather(1, sources))
        target = labels[chosen]
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.dtype == torch.bfloat16):
            outputs = network(batch)
        loss = nn.functional.cross_entropy(outputs.float(), target)
        network.zero_grad()
        loss.backward()
        if recipe.l1_lambda is not None:
            add_l1_gradient(parameters, recipe.l1_lambda)
        sgd_step(recipe, lr, parameters, list(momentum.values()))
        loss_sum += loss.detach() * len(target)
        correct += (outputs.argmax(1) == target).sum()

    outputs = networks.logits(network, torch.from_numpy(data.val_images).to(device)).cpu()
    val_labels = torch.from_numpy(data.val_labels).long()
    count = len(order)
    return Epoch(
        _arrays(network.state_dict()),
        _arrays(momentum),
        float(loss_sum) / count,
        int(correct) / count,
        *networks.loss_and_accuracy(outputs, val_labels),
    )


def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of weight·Σ|p|, which is weight·sign(p), to the parameters' gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    signs = torch._foreach_sign([p.detach() for p in parameters])
    torch._foreach_add_(gradients, signs, alpha=weight)


def l1_norm(arrays: list[NDArray[np.float32]]) -> float:
    """Σ|p| over all elements, rounded once: the same whatever their order."""
    return math.fsum(np.abs(np.concatenate([a.ravel() for a in arrays]), dtype=np.float64))


@torch.no_grad()
def sgd_step(
    recipe: Recipe, lr: float, parameters: list[nn.Parameter], momentum: list[Tensor]
) -> None:
    """Take a step of SGD: parameters and momentum change in place."""
    # The function under `torch.optim.SGD`, since the class imports torch's compiler: 2.5 s.
    sgd(
        list[Tensor](parameters),
        [p.grad for p in parameters if p.grad is not None],
        list[Tensor | None](momentum),
        fused=True,
        weight_decay=0,
        momentum=recipe.momentum,
        lr=lr,
        dampening=0,
        nesterov=recipe.nesterov,
        maximize=False,
    )


def _rng(seed: int, purpose: int, epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, epoch])


def _arrays(tensors: dict[str, Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
