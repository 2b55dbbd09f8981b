"""One trial: a variant trained with one seed, an epoch at a time.

An epoch is a pure function from state to state: all it draws comes from generators seeded with
(seed, purpose, epoch), so it does not matter where it runs, what runs beside it, or whether the
run was interrupted in between.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.sgd import sgd

from normlab import augment, engine, networks
from normlab.errors import InputError

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
    row: dict[str, float]


def resolve(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Find the device and the precision of training on the machine this runs on.

    Raises
    ------
    InputError
        If `device` or `precision` names what this machine does not have.
    """
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
    done = epoch - 1
    if recipe.lr_schedule == "step":
        return recipe.lr * recipe.lr_step_factor ** (done // recipe.lr_step_epochs)
    if recipe.lr_schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * done / recipe.epochs)) / 2
    return recipe.lr


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
    device, dtype = resolve(recipe.device, recipe.precision)
    if device.type == "cuda":
        # On a CPU all that is used here is deterministic, and the switch costs time.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else PyTorch refuses
        torch.use_deterministic_algorithms(True)
    epoch = state.epoch + 1
    lr = learning_rate(recipe, epoch)

    network = networks.build(recipe.variant, **recipe.settings)
    network.load_state_dict(_tensors(state.weights))
    network.to(device).train()
    parameters = list(network.parameters())
    saved = _tensors(state.momentum)
    momentum = {name: saved[name].to(device) for name, _ in network.named_parameters()}

    count = len(data.train_labels)
    order = torch.from_numpy(_rng(state.seed, ORDER, epoch).permutation(count)).to(device)
    drawn = augment.draw(_rng(state.seed, AUGMENTATION, epoch), count, recipe.augmentation)
    maps = torch.from_numpy(np.ascontiguousarray(drawn)).to(device)
    if device.type == "cpu" and dtype == torch.float32 and engine.fits(network):
        gradients = _by_engine(network, data, min(recipe.batch_size, count))
    else:
        gradients = _by_torch(network, data, device, dtype)

    loss_sum: Tensor | float = 0.0
    correct: Tensor | int = 0
    for chosen, affine in zip(
        order.split(recipe.batch_size), maps.split(recipe.batch_size), strict=True
    ):
        losses, hits = gradients(chosen, affine)
        if recipe.l1_lambda is not None:
            add_l1_gradient(parameters, recipe.l1_lambda)
        _descend(recipe, lr, parameters, list(momentum.values()))
        loss_sum += losses
        correct += hits

    if device.type == "cpu":
        outputs = engine.logits(network, data.val_images)
    else:
        outputs = networks.logits(network, torch.from_numpy(data.val_images).to(device)).cpu()
    val_labels = torch.from_numpy(data.val_labels).long()
    val_loss, val_accuracy = networks.loss_and_accuracy(outputs, val_labels)
    train_loss = float(loss_sum) / count
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise InputError(
            f"{recipe.variant}, seed {state.seed}, epoch {epoch}: the loss is no longer finite; "
            f"most likely the learning rate is too high (lr is {recipe.lr:g})"
        )
    row = {
        "seed": state.seed,
        "epoch": epoch,
        "lr": lr,
        "train_loss": train_loss,
        "train_accuracy": int(correct) / count,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
    }
    if recipe.l1_lambda is not None:
        row["l1_penalty"] = recipe.l1_lambda * l1_norm(parameters)
    return State(state.seed, epoch, _arrays(network.state_dict()), _arrays(momentum), row)


Gradients = Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | int]]


def _by_torch(
    network: nn.Sequential, data: Data, device: torch.device, dtype: torch.dtype
) -> Gradients:
    images = torch.from_numpy(augment.pad(data.train_images)).to(device)
    labels = torch.from_numpy(data.train_labels).long().to(device)
    positions = torch.from_numpy(augment.grid()).to(device)

    def gradients(chosen: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
        sources = augment.source_pixels(affine, positions).long()
        batch = networks.standardize(images[chosen].gather(1, sources))
        target = labels[chosen]
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            outputs = network(batch)
        loss = nn.functional.cross_entropy(outputs.float(), target)
        network.zero_grad()
        loss.backward()
        return loss.detach() * len(target), (outputs.argmax(1) == target).sum()

    return gradients


def _by_engine(network: nn.Sequential, data: Data, batch_size: int) -> Gradients:
    attached = engine.attach(network, batch_size)
    images = augment.pad(data.train_images)
    counters = [b for name, b in network.named_buffers() if name.endswith("num_batches_tracked")]

    def gradients(chosen: Tensor, affine: Tensor) -> tuple[float, int]:
        for counter in counters:
            counter += 1
        return engine.step(attached, images, data.train_labels, chosen.numpy(), affine.numpy())

    return gradients


def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of weight·Σ|p|, which is weight·sign(p), to the parameters' gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    signs = torch._foreach_sign([p.detach() for p in parameters])
    torch._foreach_add_(gradients, signs, alpha=weight)


@torch.no_grad()
def l1_norm(parameters: list[nn.Parameter]) -> float:
    """Σ|p| over all elements of all parameters."""
    return sum(float(p.abs().sum()) for p in parameters)


@torch.no_grad()
def _descend(
    recipe: Recipe, lr: float, parameters: list[nn.Parameter], momentum: list[Tensor]
) -> None:
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
