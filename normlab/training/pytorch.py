"""An epoch by PyTorch: on GPUs, in bfloat16, and for networks that the engine does not know."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from normlab.data import augment
from normlab.network import networks
from normlab.network.engine import Arrays
from normlab.training.machine import Machine
from normlab.training.recipe import Data, Draws, Epoch, Recipe, State


def train_epoch(
    recipe: Recipe, machine: Machine, lr: float, state: State, data: Data, draws: Draws
) -> Epoch:
    """Train for an epoch at the learning rate `lr` and measure on the validation images."""
    device = machine.device
    if device.type == "cuda":
        # On a CPU all that is used here is deterministic, and the switch costs time.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else PyTorch refuses
        torch.use_deterministic_algorithms(True)
    network = networks.build(recipe.variant, recipe.architecture, **recipe.norm_params)
    network.load_state_dict(_tensors(state.weights))
    network.to(device).train()
    saved = _tensors(state.momentum)
    momentum = {name: saved[name].to(device) for name, _ in network.named_parameters()}
    # Kept on the device: to fetch a value would wait for all work there.
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for batch, target in augmented_batches(recipe, data, draws, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.dtype == torch.bfloat16):
            outputs = network(batch)
        loss = nn.functional.cross_entropy(outputs.float(), target)
        network.zero_grad()
        loss.backward()
        parameters = list(network.parameters())
        if recipe.l1_lambda is not None:
            add_l1_gradient(parameters, recipe.l1_lambda)
        sgd_step(recipe, lr, parameters, list(momentum.values()))
        loss_sum += loss.detach() * len(target)
        correct += (outputs.argmax(1) == target).sum()
    count = len(draws.order)
    return Epoch(
        arrays(network.state_dict()),
        arrays(momentum),
        float(loss_sum) / count,
        int(correct) / count,
        *validate(recipe, network, data, device),
    )


def augmented_batches(
    recipe: Recipe, data: Data, draws: Draws, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented, standardized images, (b, 1, s, s) float32, and labels, (b,) int64."""
    images = torch.from_numpy(augment.pad(data.train_images)).to(device)
    labels = torch.from_numpy(data.train_labels).long().to(device)
    positions = torch.from_numpy(augment.grid(recipe.architecture.side)).to(device)
    chosen_of = torch.from_numpy(draws.order).to(device).split(recipe.batch_size)
    maps_of = torch.from_numpy(draws.maps).to(device).split(recipe.batch_size)
    for chosen, maps in zip(chosen_of, maps_of, strict=True):
        sources = augment.source_pixels(maps, positions).long()
        pixels = images[chosen].gather(1, sources)
        yield networks.standardize(pixels, recipe.architecture), labels[chosen]


def validate(
    recipe: Recipe, network: nn.Module, data: Data, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and fraction correct on the validation images."""
    images = torch.from_numpy(data.val_images).to(device)
    outputs = networks.logits(network, images, of=recipe.architecture).cpu()
    return networks.loss_and_accuracy(outputs, torch.from_numpy(data.val_labels).long())


def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Add the gradient of weight·Σ|p|, which is weight·sign(p), to the parameters' gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    signs = torch._foreach_sign([p.detach() for p in parameters])
    torch._foreach_add_(gradients, signs, alpha=weight)


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


def arrays(tensors: dict[str, Tensor]) -> Arrays:
    """Copy tensors into arrays on the CPU."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
