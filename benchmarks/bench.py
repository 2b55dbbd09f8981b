"""`make bench`: how fast training is, against the textbook way and against the machine's limit.

All ways are measured in turn, several times over, and compared by their ratios: what else the
machine does then meets all of them alike.
"""

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

import torch
from dask.system import CPU_COUNT
from distributed import Client
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

from benchmarks import pipeline
from normlab import cluster, engine, networks, params, training
from normlab.training import Data, Recipe
from stages import train, trials

VARIANTS = tuple(networks.NORMALIZATIONS)
REPETITIONS = 5
IMAGES = 16_384
TEXTBOOK_IMAGES = 4_096
TABLE = Path("benchmarks/results.md")


def main() -> None:
    """Measure, print the tables and keep them in a file."""
    settings = params.load(train.PARAMS)
    recipes = [trials.recipe_of(variant, partial(getattr, settings)) for variant in VARIANTS]
    data = trials.read_data(settings.val_size, settings.train_size)
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
            partial(operators, recipes[0], few),
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
        ways: dict[str, Callable[[Recipe], float]] = {
            "textbook": lambda recipe: apart.submit(textbook, folder, recipe, workers).result(),
            "PyTorch, float32": lambda recipe: speed_of(client, pytorch, recipe, "float32", data),
            "engine, float32": lambda recipe: speed_of(client, ours, recipe, "float32", data),
            "auto": lambda recipe: speed_of(client, ours, recipe, "auto", data),
            "auto, one worker": lambda recipe: speed_of(single, ours, recipe, "auto", data),
        }
        measured: dict[tuple[str, str], list[float]] = {}
        peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for run in tqdm(range(REPETITIONS + 1), desc="throughput"):
            for recipe in recipes:
                for name, way in ways.items():
                    speed = way(recipe)
                    if run:  # the first one warms up
                        measured.setdefault((recipe.variant, name), []).append(speed)
            for name, found in peaks.items():
                found.append(matrix_peak(name))
    lines = [
        f"Textbook: torchvision's MNIST, its transforms, a DataLoader with {workers} workers.",
        "",
        "| variant | way | images/s | ÷ textbook, lowest to highest |",
        "|---|---|---|---|",
    ]
    for (variant, name), speeds in measured.items():
        base = measured[variant, "textbook"]
        ratios = [speed / by for speed, by in zip(speeds, base, strict=True)]
        spread = f"{statistics.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}"
        lines.append(f"| {variant} | {name} | {statistics.median(speeds):,.0f} | {spread} |")
    lines += [
        "",
        "| variant | share of the float32 limit | of bfloat16's | trials an hour, one worker | "
        f"{CPU_COUNT} workers | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        work = flops(recipe)
        every, one = measured[recipe.variant, "auto"], measured[recipe.variant, "auto, one worker"]
        speed, alone = statistics.median(every), statistics.median(one)
        shares = " | ".join(f"{speed * work / max(found):.2f}" for found in peaks.values())
        hourly = f"{alone * 3600 / trial:.0f} | {speed * 3600 / trial:.0f}"
        ratio = statistics.median(a / b for a, b in zip(every, one, strict=True))
        lines.append(f"| {recipe.variant} | {shares} | {hourly} | {ratio:.2f} |")
    limits = [f"{max(found) / 1e9:.0f} GFLOP/s in {name}" for name, found in peaks.items()]
    each = f"{flops(recipes[0]) / 1e6:.2f} MFLOP an image"
    lines += ["", f"Limit: the fastest matrix product seen, {', '.join(limits)}, over {each}."]
    return lines


def speed_of(
    client: Client, epoch: Callable[..., float], recipe: Recipe, precision: str, data: Data
) -> float:
    """Images a second of as many trials at once as the client has workers."""
    recipe = replace(recipe, device="cpu", precision=precision)
    count = len(client.scheduler_info()["workers"])
    step = partial(epoch, recipe)
    chains = [(step, training.start(recipe, seed), 1) for seed in range(count)]
    slowest = max(seconds for _, seconds in cluster.iterate(client, chains, data))
    return len(data.train_labels) * count / slowest


def ours(recipe: Recipe, state: training.State, data: Data) -> float:
    """Seconds of an epoch."""
    begun = time.perf_counter()
    training.train_epoch(recipe, state, data)
    return time.perf_counter() - begun


def pytorch(recipe: Recipe, state: training.State, data: Data) -> float:
    """Seconds of an epoch without the engine."""
    fits, engine.fits = engine.fits, lambda network: False  # noqa: ARG005
    try:
        return ours(recipe, state, data)
    finally:
        engine.fits = fits


def textbook(folder: str, recipe: Recipe, workers: int) -> float:
    """Images a second of the loop that tutorials show."""
    ranges = recipe.augmentation
    transform = transforms.Compose(
        [
            transforms.RandomAffine(
                ranges.rotation, (ranges.translation,) * 2, ranges.scale, ranges.shear
            ),
            transforms.ToTensor(),
            transforms.Normalize(networks.MEAN, networks.STD),
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
    network = networks.build(recipe.variant, **recipe.settings).train()
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


def matrix_peak(precision: str) -> float:
    """Operations a second of a large matrix product on all cores: the fastest, whoever's it is."""
    a, b = torch.randn(2, 2048, 2048)
    # PyTorch's float32 products leave half of some processors unused, and NumPy's of others.
    products: list[Callable[[], object]] = (
        [lambda: a @ b, lambda: a.numpy() @ b.numpy()]
        if precision == "float32"
        else [partial(torch.matmul, a.bfloat16(), b.bfloat16())]
    )
    seconds = []
    for product in products * 5:
        begun = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - begun)
    return float(2 * 2048**3 / min(seconds))


def flops(recipe: Recipe) -> float:
    """Operations of a training step an image, as PyTorch counts them."""
    # At import it warns that it cannot count the kernels of triton, of which there are none.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    network = networks.build(recipe.variant, **recipe.settings)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28)).sum().backward()
    return float(counter.get_total_flops())


def operators(recipe: Recipe, data: Data) -> list[str]:
    """Where the time goes, by PyTorch's profiler, in which the engine is one operator."""
    recipe = replace(recipe, device="cpu", precision="float32")
    state = training.start(recipe, 0)
    lines = ["| operator | share of its own time, engine | PyTorch |", "|---|---|---|"]
    shares = []
    step = engine.step
    for epoch in (ours, pytorch):
        with torch.profiler.profile() as profile:
            engine.step = torch.profiler.record_function("engine.step")(step)
            epoch(recipe, state, data)
            engine.step = step
        events = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
        whole = sum(events.values())
        shares.append({name: spent / whole for name, spent in events.items()})
    largest = sorted(shares[0].keys() | shares[1].keys(), key=lambda n: -share_of(shares, n))
    for name in largest[:10]:
        lines.append(f"| {name} | {shares[0].get(name, 0):.1%} | {shares[1].get(name, 0):.1%} |")
    return lines


def share_of(shares: list[dict[str, float]], name: str) -> float:
    """Find the larger of an operator's shares."""
    return max(share.get(name, 0.0) for share in shares)


if __name__ == "__main__":
    main()
