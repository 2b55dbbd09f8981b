"""What a batch takes of a machine's memory, and whether there is as much."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import psutil
import torch
from distributed.system import MEMORY_LIMIT
from torch import Tensor, nn

from normlab.network import engine, networks
from normlab.training import machine
from normlab.training.recipe import Recipe


def what_does_not_fit(recipes: Sequence[Recipe], count: int, at_once: int) -> str | None:
    """Say which trials' batches do not fit the memory of this machine, which is to train them.

    Parameters
    ----------
    recipes
        Of each trial.
    count
        Images that a trial learns from.
    at_once
        How many of the trials run on this machine at a time.

    Returns
    -------
    A line if the `at_once` largest take more than is free, else None.
    """
    free = room()
    costs = {key: memory(recipe, count) for key, recipe in {id(r): r for r in recipes}.items()}
    largest = sorted(recipes, key=lambda recipe: costs[id(recipe)], reverse=True)[:at_once]
    if sum(costs[id(recipe)] for recipe in largest) <= free:
        return None
    recipe = largest[0]
    fits = bisect_right(
        range(1, recipe.batch_size + 1),
        free // len(largest),
        key=lambda size: memory(replace(recipe, batch_size=size), count),
    )
    return (
        f"batch_size: got {recipe.batch_size}, which takes {_gib(costs[id(recipe)])} in each of "
        f"{len(largest)} trials at a time, and {_gib(free)} are free, allowed here: at most {fits}"
    )


def memory(recipe: Recipe, count: int) -> int:
    """Bytes that a trial takes beside its data and its program.

    The engine's are exact. PyTorch keeps the outputs of all layers and makes gradients of some: a
    quarter more, measured. What it takes of a GPU is not this machine's.
    """
    found, size = machine.resolve(recipe), min(recipe.batch_size, count)
    if found.plan is not None:
        return engine.memory(found.plan, size)
    if found.device.type != "cpu":
        return 0
    network = networks.build(recipe.variant, recipe.architecture, **recipe.norm_params)
    return size * _outputs(network, recipe.architecture.side) * 5 // 4


def room() -> int:
    """Bytes that programs can still have here, in a container no more than it may have."""
    return min(int(psutil.virtual_memory().available), int(MEMORY_LIMIT))


@torch.inference_mode()
def _outputs(network: nn.Module, side: int) -> int:
    """Bytes of what a network's layers make of an image, in float32."""
    sizes: list[int] = []

    def note(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.numel() * output.element_size())

    for layer in network.eval().children():
        layer.register_forward_hook(note)
    network(torch.zeros(1, 1, side, side))
    return sum(sizes)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
