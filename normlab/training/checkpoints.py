"""What a killed train stage leaves behind, so that the next run goes on instead of starting over.

A checkpoint is used only by a run that would have computed it bit for bit: same recipe, data and
arithmetic. Nothing here is an output; a stage that succeeds removes its checkpoints.
"""

import hashlib
import json
from pathlib import Path

import safetensors
from safetensors.numpy import load_file, save

from normlab import files
from normlab.training.recipe import Data, Recipe, State, learning_rate


def folder(root: Path, recipe: Recipe, data: Data, arithmetic: str) -> Path:
    """Where the checkpoints of these trials are kept: a name made from all they depend on.

    `arithmetic` is the machine's, as `machine.resolve` gives it; the engine's is the same
    everywhere, so checkpoints may move between machines.
    """
    rates = [learning_rate(recipe, epoch + 1) for epoch in range(recipe.epochs)]
    digest = hashlib.sha256(f"{recipe} {rates} {arithmetic}".encode())
    for array in data:
        digest.update(array.data)
    return root / digest.hexdigest()[:16]


def save_state(directory: Path, state: State) -> None:
    """Write the state of a trial after an epoch."""
    tensors = {f"weights/{name}": array for name, array in state.weights.items()}
    tensors |= {f"momentum/{name}": array for name, array in state.momentum.items()}
    files.write(_path(directory, state.seed, state.epoch), save(tensors, _metadata(state)))


def load_states(directory: Path, seed: int, epochs: int) -> list[State]:
    """Read the epochs of a trial that were finished before it was interrupted, in order."""
    states: list[State] = []
    for epoch in range(1, epochs + 1):
        path = _path(directory, seed, epoch)
        if not path.exists():
            break
        with safetensors.safe_open(path, "numpy") as stream:
            row = json.loads(stream.metadata()["row"])
        tensors = load_file(path)
        weights, momentum = (
            {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
            for prefix in ("weights/", "momentum/")
        )
        states.append(State(seed, epoch, weights, momentum, row))
    return states


def _metadata(state: State) -> dict[str, str]:
    return {"row": json.dumps(state.row)}


def _path(directory: Path, seed: int, epoch: int) -> Path:
    return directory / f"seed{seed}-epoch{epoch:02d}.safetensors"
