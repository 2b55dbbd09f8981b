"""`make bench`: how fast training is, against the textbook way and against the machine's limit.

All ways are measured in turn, several times over, and compared by their ratios: what else the
machine does then meets all of them alike.
"""

import ctypes
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import torch
from dask.system import CPU_COUNT
from distributed import Client
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

from benchmarks import pipeline
from normlab import params
from normlab.data.validation import Part
from normlab.network import compiled, networks, plans
from normlab.network.architecture import REFERENCE
from normlab.network.compiled import Processor
from normlab.training import cluster, machine, trial, trials
from normlab.training.chains import run_chains
from normlab.training.recipe import Data, Recipe, State
from stages import train

VARIANTS = tuple(networks.VARIANTS)
REPETITIONS = 5
IMAGES = 16_384
TEXTBOOK_IMAGES = 4_096
TABLE = Path("benchmarks/results.md")
PEAK = Path("benchmarks/peak.c").read_text()
SLOW = compiled.X86_64  # its fused multiply-adds are emulated


def main() -> None:
    """Measure, print the tables and keep them in a file."""
    settings = params.load(train.PARAMS)
    recipes = [trials.recipe_of(variant, partial(getattr, settings)) for variant in VARIANTS]
    data = trials.data_of(Part(settings.val_size, settings.train_size), trials.read_images())
    trial = len(data.train_labels) * settings.epochs
    few = Data(
        data.train_images[:IMAGES],
        data.train_labels[:IMAGES],
        data.val_images[:64],
        data.val_labels[:64],
    )
    lines = [f"{CPU_COUNT} cores, PyTorch {torch.__version__}, medians of {REPETITIONS} runs", ""]
    with tempfile.TemporaryDirectory() as folder:
        sections = (
            partial(throughput, recipes, few, trial),
            partial(pipeline.report, Path(folder) / "clone"),
        )
        for section in sections:
            lines += [*section(), ""]
            TABLE.write_text("\n".join(lines))
    print("\n".join(lines))


def throughput(recipes: list[Recipe], data: Data, trial: int) -> list[str]:
    """Images a second on the whole machine, each way, and the share of the limit.

    A trial of the pipeline learns from `trial` images.
    """
    with (
        cluster.connect(CPU_COUNT) as client,
        cluster.connect(1) as single,
        tempfile.TemporaryDirectory() as folder,
        # A DataLoader forks, which a process with a cluster of its own had better not do.
        ProcessPoolExecutor(1, get_context("spawn")) as apart,
    ):
        workers = apart.submit(best_workers, folder, recipes[0]).result()
        kinds = available()
        ways: dict[str, Callable[[Recipe], float]] = {
            "textbook": lambda recipe: apart.submit(textbook, folder, recipe, workers).result(),
            "PyTorch": lambda recipe: speed_of(client, pytorch, recipe, data),
            **{f"engine, {kind.name}": partial(engine_speed, client, kind, data) for kind in kinds},
            "engine, one worker": partial(engine_speed, single, kinds[0], data),
        }
        measured: dict[tuple[str, str], list[float]] = {}
        peaks: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        for run in tqdm(range(REPETITIONS + 1), desc="throughput"):
            for recipe in recipes:
                for name, way in ways.items():
                    if name == f"engine, {SLOW.name}" and run > 1:
                        continue
                    speed = way(recipe)
                    if run:  # the first one warms up
                        measured.setdefault((recipe.variant, name), []).append(speed)
            for kind in kinds:
                peaks[kind.name].append(machine_peak(client, kind))
    lines = [
        f"Textbook: torchvision's MNIST, its transforms, a DataLoader with {workers} workers. All "
        "in float32.",
        "",
        "| variant | way | images/s | ÷ textbook, lowest to highest | share of the peak |",
        "|---|---|---|---|---|",
    ]
    work = flops(recipes[0])
    for (variant, name), speeds in measured.items():
        base = measured[variant, "textbook"][: len(speeds)]
        ratios = [speed / by for speed, by in zip(speeds, base, strict=True)]
        spread = f"{statistics.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}"
        speed, share = statistics.median(speeds), ""
        if (found := peaks.get(name.removeprefix("engine, "))) is not None:
            share = f"{speed * work / max(found):.0%}"
        lines.append(f"| {variant} | {name} | {speed:,.0f} | {spread} | {share} |")
    lines += [
        "",
        f"| variant | trials an hour, one worker | {CPU_COUNT} workers | ratio |",
        "|---|---|---|---|",
    ]
    for recipe in recipes:
        every = measured[recipe.variant, f"engine, {kinds[0].name}"]
        one = measured[recipe.variant, "engine, one worker"]
        speed, alone = statistics.median(every), statistics.median(one)
        hourly = f"{alone * 3600 / trial:.0f} | {speed * 3600 / trial:.0f}"
        ratio = statistics.median(a / b for a, b in zip(every, one, strict=True))
        lines.append(f"| {recipe.variant} | {hourly} | {ratio:.2f} |")
    limits = [f"{max(found) / 1e9:.0f} GFLOP/s as {name}" for name, found in peaks.items()]
    each = f"{work / 1e6:.2f} MFLOP an image"
    lines += [
        "",
        f"Peak: multiply-adds that never leave the registers, {', '.join(limits)}; {each}.",
    ]
    return lines


def available() -> list[Processor]:
    """Kinds of processor that this one can stand for, itself first."""
    own = compiled.processor()
    before = [kind for kind in (compiled.AVX2, compiled.X86_64) if kind.width < own.width]
    return [own] if own is compiled.ARM64 else [own, *before]


def speed_of(client: Client, epoch: Callable[..., float], recipe: Recipe, data: Data) -> float:
    """Images a second of as many trials at once as the client has workers."""
    recipe = replace(recipe, device="cpu", precision="float32")
    count = len(client.scheduler_info()["workers"])
    step = partial(epoch, recipe)
    chains = [(step, trial.start(recipe, seed), 1) for seed in range(count)]
    slowest = max(seconds for _, seconds in run_chains(client, chains, data))
    return len(data.train_labels) * count / slowest


def engine_speed(client: Client, kind: Processor, data: Data, recipe: Recipe) -> float:
    """Images a second of the engine on a kind of processor."""
    return speed_of(client, partial(ours_on, kind), recipe, data)


def ours(recipe: Recipe, state: State, data: Data) -> float:
    """Seconds of an epoch."""
    begun = time.perf_counter()
    trial.train_epoch(recipe, state, data)
    return time.perf_counter() - begun


def ours_on(kind: Processor, recipe: Recipe, state: State, data: Data) -> float:
    """Seconds of an epoch on a kind of processor, of few images where that is slow; scaled."""
    few = 16 if kind == SLOW else 1
    some = data._replace(
        train_images=data.train_images[: len(data.train_images) // few],
        train_labels=data.train_labels[: len(data.train_labels) // few],
    )
    with mock.patch.object(compiled, "processor", return_value=kind):
        machine.resolve(recipe)  # compiles, once
        return few * ours(recipe, state, some)


def pytorch(recipe: Recipe, state: State, data: Data) -> float:
    """Seconds of an epoch without the engine."""
    unknown = plans.Unsupported("what it is not asked for")
    with mock.patch.object(plans, "plan", return_value=unknown):
        return ours(recipe, state, data)


def textbook(folder: str, recipe: Recipe, workers: int) -> float:
    """Images a second of the loop that tutorials show."""
    ranges = recipe.augmentation
    transform = transforms.Compose(
        [
            transforms.RandomAffine(
                ranges.rotation, (ranges.translation,) * 2, ranges.scale, ranges.shear
            ),
            transforms.ToTensor(),
            transforms.Normalize(REFERENCE.mean, REFERENCE.std),
        ]
    )
    raw = Path(folder) / "MNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in [*Path("data/train").iterdir(), *Path("data/test").iterdir()]:
        if not (raw / file.name).exists():
            (raw / file.name).symlink_to(file.resolve())
    dataset = Subset(datasets.MNIST(folder, transform=transform), range(TEXTBOOK_IMAGES))
    fork = "fork" if workers else None
    loader = DataLoader(
        dataset, recipe.batch_size, True, num_workers=workers, multiprocessing_context=fork
    )
    network = networks.build(recipe.variant, **recipe.norm_params).train()
    optimizer = torch.optim.SGD(network.parameters(), recipe.lr, recipe.momentum, nesterov=True)
    begun = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        if recipe.l1_lambda is not None:
            loss = loss + recipe.l1_lambda * sum(p.abs().sum() for p in network.parameters())
        loss.backward()
        optimizer.step()
    return TEXTBOOK_IMAGES / (time.perf_counter() - begun)


def best_workers(folder: str, recipe: Recipe) -> int:
    """Find the number of DataLoader workers with which the textbook loop is fastest."""
    speeds = {
        workers: statistics.median(textbook(folder, recipe, workers) for _ in range(3))
        for workers in range(CPU_COUNT + 1)
    }
    return max(speeds, key=lambda workers: speeds[workers])


def machine_peak(client: Client, kind: Processor) -> float:
    """Operations a second of multiply-adds in registers, on all workers at once."""
    count = len(client.scheduler_info()["workers"])
    chains = [(partial(register_peak, kind), None, 1) for _ in range(count)]
    return sum(found for _, found in run_chains(client, chains, None))


def register_peak(kind: Processor, _state: None, _shared: None) -> float:
    """Operations a second of one worker: a multiply-add is two."""
    library = compiled.load(f"#define WIDTH {kind.width}\n{PEAK}", kind)
    library.peak.restype = ctypes.c_float
    library.peak.argtypes = [ctypes.c_long]
    rounds, seconds = 5_000_000, []
    for _ in range(3):
        begun = time.perf_counter()
        library.peak(rounds)
        seconds.append(time.perf_counter() - begun)
    return 2 * rounds * int(library.products()) / min(seconds)


def flops(recipe: Recipe) -> float:
    """Operations of a training step an image, as PyTorch counts them."""
    # At import it warns that it cannot count the kernels of triton, of which there are none.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    network = networks.build(recipe.variant, **recipe.norm_params)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28)).sum().backward()
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
