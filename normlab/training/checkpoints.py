"""What a killed train stage leaves behind, so that the next run goes on instead of starting over.

A checkpoint is used only by a run that would have computed it bit for bit: same recipe, data and
arithmetic. Nothing here is an output; a stage that succeeds removes its checkpoints.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save
from tqdm import tqdm

from normlab import files
from normlab.data.validation import Part
from normlab.errors import InputError
from normlab.training.recipe import Images, Recipe, State, learning_rate

BLANK = 64 * "0"
SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')
"""Where in a file its checksum is, which is taken with `BLANK` in its place."""


def digest(images: Images) -> str:
    """Give the digest of images and their labels."""
    found = hashlib.sha256()
    for array in images:
        found.update(array.data)
    return found.hexdigest()


def folder(root: Path, recipe: Recipe, part: Part, images: str, arithmetic: str) -> Path:
    """Where the checkpoints of these trials are kept: a name made from all they depend on.

    `images` is their `digest`, `part` says which of them are for what. `arithmetic` is the
    machine's, as `machine.resolve` gives it; the engine's is the same everywhere, so checkpoints
    may move between machines.
    """
    rates = [learning_rate(recipe, epoch + 1) for epoch in range(recipe.epochs)]
    told = f"{recipe} {rates} {part} {images} {arithmetic}"
    return root / hashlib.sha256(told.encode()).hexdigest()[:16]


def save_state(directory: Path, state: State) -> None:
    """Write the state of a trial after an epoch, with a checksum of all that the file holds."""
    tensors = {f"weights/{name}": array for name, array in state.weights.items()}
    tensors |= {f"momentum/{name}": array for name, array in state.momentum.items()}
    content = save(tensors, {"row": json.dumps(state.row), "sha256": BLANK})
    seal = f'"sha256":"{hashlib.sha256(content).hexdigest()}"'.encode()
    files.write(_path(directory, state.seed, state.epoch), SEAL.sub(seal, content, count=1))


def _to_stderr(line: str) -> None:
    tqdm.write(line, sys.stderr)


def load_states(
    directory: Path, seed: int, epochs: int, report: Callable[[str], None] = _to_stderr
) -> list[State]:
    """Read the epochs of a trial that were finished before it was interrupted, in order.

    What cannot be read, or is not as it was written, is as good as absent; `report` takes the line
    that says so.
    """
    states: list[State] = []
    for epoch in range(1, epochs + 1):
        path = _path(directory, seed, epoch)
        if not path.exists():
            break
        try:
            row, tensors = _read(path, seed, epoch)
        except InputError as error:
            report(f"{error}; goes on from epoch {epoch - 1}")
            break
        weights, momentum = (
            {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
            for prefix in ("weights/", "momentum/")
        )
        states.append(State(seed, epoch, weights, momentum, row))
    return states


def _read(path: Path, seed: int, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return row and tensors, of bytes that are known to be those that `save_state` wrote."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    sealed = SEAL.search(content)
    blank = SEAL.sub(f'"sha256":"{BLANK}"'.encode(), content, count=1)
    if not sealed or hashlib.sha256(blank).hexdigest() != sealed[1].decode():
        raise InputError(f"{path}: does not have its checksum")
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    row = json.loads(json.loads(header)["__metadata__"]["row"])
    if (row["seed"], row["epoch"]) != (seed, epoch):
        raise InputError(f"{path}: got seed {row['seed']}, epoch {row['epoch']}")
    return row, load(content)


def _path(directory: Path, seed: int, epoch: int) -> Path:
    return directory / f"seed{seed}-epoch{epoch:02d}.safetensors"
