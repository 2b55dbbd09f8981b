"""Stage `evaluate`: the one stage that sees test images. Scores, compares and explains."""

from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save

from normlab import files, params
from normlab.data import datasets
from normlab.evidence import evaluation, metrics
from normlab.evidence.evaluation import Images, Measured, Model
from normlab.network import networks

PARAMS = Path("params.yaml")
SPLIT = Path("data/test")
MODELS = Path("models")
HISTORIES = Path("reports/history")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
REPORTS = Path("reports")

TARGET_ACCURACY = 0.98


def main(*variants: str) -> None:
    """Evaluate the models of `variants` and write metrics, tables and misclassified images."""
    settings = params.load(PARAMS)
    of_variant = {v: {n: getattr(settings, n) for n in networks.settings(v)} for v in variants}
    histories = {variant: files.read_table(HISTORIES / f"{variant}.csv") for variant in variants}
    trained = [
        evaluation.read_model(
            MODELS / variant / f"seed{seed}" / f"epoch{epoch:02d}.safetensors",
            *(variant, of_variant[variant], seed, epoch),
        )
        for variant in variants
        for seed, epoch in histories[variant][["seed", "epoch"]].to_numpy(int).tolist()
    ]
    test = Images(*datasets.read_split(SPLIT, "test"))
    results = evaluation.measure_all(trained, test)
    last = {variant: int(histories[variant]["epoch"].max()) for variant in variants}
    final = [result for result in results if result.epoch == last[result.variant]]
    final_models = [model for model in trained if model.epoch == last[model.variant]]

    files.write_table(REPORTS / "test_curves.csv", curves(results))
    files.write_table(REPORTS / "predictions.csv", predictions(final, test))
    files.write_table(REPORTS / "confusion.csv", confusion(final, test))
    files.write_table(REPORTS / "parameters.csv", parameters(of_variant))
    wrong = misclassified(final, test)
    files.write_table(REPORTS / "misclassified.csv", wrong)
    index = np.unique(wrong["index"])
    files.write(MISCLASSIFIED_IMAGES, save({"index": index, "images": test.images[index]}))
    summaries = {
        variant: summary(
            [result for result in final if result.variant == variant],
            [model for model in final_models if model.variant == variant],
            histories[variant],
            test,
        )
        for variant in variants
    }
    comparisons = {
        f"{one}_vs_{other}": comparison(one, other, final, test)
        for one, other in combinations(variants, 2)
    }
    files.write_metrics(REPORTS / "metrics.json", summaries | comparisons)


def curves(results: list[Measured]) -> pd.DataFrame:
    """Test loss and accuracy of every epoch of every trial."""
    columns = ["variant", "seed", "epoch", "loss", "accuracy"]
    return pd.DataFrame([result[: len(columns)] for result in results], columns=columns)


def predictions(final: list[Measured], test: Images) -> pd.DataFrame:
    """Digits predicted by every trial's last model, a row per test image, a column per trial."""
    columns = {f"{r.variant}_seed{r.seed}": r.probabilities.argmax(1) for r in final}
    return pd.DataFrame({"index": np.arange(len(test.labels)), "true": test.labels, **columns})


def confusion(final: list[Measured], test: Images) -> pd.DataFrame:
    """Confusion counts of every variant, summed over its seeds."""
    rows = []
    for variant in dict.fromkeys(result.variant for result in final):
        matrix = sum(
            metrics.confusion_matrix(test.labels, result.probabilities.argmax(1))
            for result in final
            if result.variant == variant
        )
        rows += [(variant, *pair, count) for pair, count in np.ndenumerate(matrix)]
    table = [(variant, true, predicted, count) for variant, true, predicted, count in rows]
    return pd.DataFrame(table, columns=["variant", "true", "predicted", "count"])


def parameters(of_variant: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Trainable parameters of every layer of every variant."""
    rows = [
        (variant, layer, count)
        for variant, settings in of_variant.items()
        for layer, count in networks.parameters_by_layer(
            networks.build(variant, **settings)
        ).items()
    ]
    return pd.DataFrame(rows, columns=["variant", "layer", "parameters"])


def misclassified(final: list[Measured], test: Images) -> pd.DataFrame:
    """Test images that a trial's last model gets wrong, with what it thought of them."""
    tables = []
    for result in final:
        predicted = result.probabilities.argmax(1)
        wrong = np.flatnonzero(predicted != test.labels)
        columns = {
            "variant": result.variant,
            "seed": result.seed,
            "index": wrong,
            "true": test.labels[wrong],
            "predicted": predicted[wrong],
            "probability": result.probabilities[wrong, predicted[wrong]],
            "probability_true": result.probabilities[wrong, test.labels[wrong]],
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def summary(
    final: list[Measured], models: list[Model], history: pd.DataFrame, test: Images
) -> dict[str, Any]:
    """Metrics of one variant over its seeds."""
    accuracy = metrics.mean_interval(np.array([result.accuracy for result in final]))
    errors = [
        metrics.expected_calibration_error(result.probabilities, test.labels) for result in final
    ]
    reached = [
        metrics.first_epoch_reaching(trial["val_accuracy"].to_numpy(), TARGET_ACCURACY)
        for _, trial in history.groupby("seed", sort=False)
    ]
    epochs = [epoch for epoch in reached if epoch is not None]
    network = networks.build(models[0].variant, **models[0].settings)
    return {
        "accuracy": accuracy.mean,
        "accuracy_std": accuracy.std,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "loss": mean(result.loss for result in final),
        "parameters": sum(networks.parameters_by_layer(network).values()),
        "ece": mean(errors),
        "small_weights": mean(evaluation.small_share(model) for model in models),
        "epochs_to_98": float(mean(epochs)) if len(epochs) == len(reached) else None,
    }


def comparison(one: str, other: str, final: list[Measured], test: Images) -> dict[str, Any]:
    """Difference in test accuracy of two variants, `one` less `other`, on the same images."""

    def correct(variant: str) -> dict[int, Any]:
        return {
            result.seed: result.probabilities.argmax(1) == test.labels
            for result in final
            if result.variant == variant
        }

    ours, theirs = correct(one), correct(other)
    paired = [ours[seed].astype(np.int8) - theirs[seed].astype(np.int8) for seed in ours]
    interval = metrics.pigeonhole_bootstrap(np.array(paired))
    return {
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "min_p": metrics.sign_flip_floor(len(paired)),
        "verdict": metrics.verdict(interval.low, interval.high),
    }
