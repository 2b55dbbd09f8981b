"""Statistics of made-up data, printed to the bit; `test_portable` runs it on several machines.

The data are whole numbers from a generator whose stream is part of what is tested. Exact are all
figures but the ends of intervals and Student's p-values, which contain quantiles of SciPy's, and
logarithms: those have nine decimals, four more than any report.
"""

import json

import numpy as np

from normlab.evidence import inference, intervals, metrics


def results() -> dict[str, str]:
    """Every function of `normlab.evidence` that computes with floats."""
    generator = np.random.default_rng(17)
    counts = generator.integers(9900, 9950, size=(10, 6))  # correct of 10,000, seeds by settings
    accuracies = counts / 10_000
    correct = generator.integers(1000, size=(2, 5, 2000)) > np.array([6, 9]).reshape(2, 1, 1)
    weights = generator.integers(1, 2**14, size=(3000, 10)) ** 4
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    few = [accuracies[:, 3], accuracies[:7, 1]]
    many = [generator.integers(9900, 9950, size=n) / 10_000 for n in (15, 13)]
    summary = intervals.mean_interval(accuracies[:, 1])
    squares = intervals.mean_squares(correct[0].astype(np.int64))
    accuracy = intervals.accuracy_interval(correct[0])
    difference = intervals.difference_interval(*correct)
    contrast = inference.contrast([*few, accuracies[:, 5]], [1, -0.5, -0.5])
    level = 1 - 0.05 / 19
    shared = [inference.permutation_test(*arms) for arms in (few, many)]
    trend = inference.trend_test(list(accuracies.T))
    losses = probabilities.max(axis=1)[:9]
    return {
        "mean": exact(summary.mean, summary.std),
        "mean_interval": rounded(summary.low, summary.high),
        "mean_squares": " ".join(str(part) for part in squares),
        "accuracy": exact(accuracy.mean, accuracy.std),
        "accuracy_interval": rounded(accuracy.low, accuracy.high),
        "difference": exact(difference.mean),
        "difference_interval": rounded(*difference[1:]),
        "calibration_error": exact(
            metrics.expected_calibration_error(probabilities, weights.argmax(axis=1) // 2 * 2)
        ),
        "contrast": exact(contrast.effect, *[arm.spread for arm in contrast.arms[:2]]),
        "contrast_interval": rounded(*inference.interval(contrast, level)),
        "welch": rounded(inference.welch_test(contrast), inference.welch_test(contrast, 0.001)),
        "seeds_needed": str(inference.seeds_needed(contrast, 0.0005, level)),
        "permutations": exact(*[p.value for p in shared]),
        "trend": exact(trend.p.value),
        "epochs_to_reach": exact(
            metrics.epochs_to_reach(accuracies[:, 0], accuracies[:3, 0].mean())
        ),
        "mean_log": rounded(metrics.mean_log(losses)),
    }


def exact(*values: float | None) -> str:
    return " ".join("None" if value is None else float(value).hex() for value in values)


def rounded(*values: float | None) -> str:
    return " ".join("None" if value is None else f"{value:.9f}" for value in values)


if __name__ == "__main__":
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    print(json.dumps({"simd": simd.get("found", []), "results": results()}, indent=4))
