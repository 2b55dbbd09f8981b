"""Statistics of made-up data, printed to the bit; `test_portable` runs it on several machines.

The data are whole numbers from a generator whose stream is part of what is tested. Exact are all
figures but the ends of intervals, which contain quantiles of SciPy's: those have nine decimals,
four more than any report.
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
    pairs = accuracies[:, 3] - accuracies[:, 1]
    many = generator.integers(-30, 40, size=20) / 10_000

    summary = intervals.mean_interval(accuracies[:, 1])
    variance = intervals.resampled_variance(correct[0].astype(np.int8) - correct[1])
    bootstrap = intervals.pigeonhole_bootstrap(correct[0].astype(np.int8) - correct[1])
    paired = inference.paired_interval(pairs, seed=0)
    flips = [inference.sign_flip_test(x) for x in (pairs, many)]
    trend = inference.trend_test(accuracies, seed=0)
    return {
        "mean": exact(summary.mean, summary.std),
        "mean_interval": rounded(summary.low, summary.high),
        "resampled_variance": " ".join(str(part) for part in variance),
        "pigeonhole_bootstrap": exact(bootstrap.mean),
        "pigeonhole_interval": rounded(*bootstrap[1:]),
        "calibration_error": exact(
            metrics.expected_calibration_error(probabilities, weights.argmax(axis=1) // 2 * 2)
        ),
        "paired": exact(paired.mean),
        "paired_interval": rounded(*paired[1:]),
        "sign_flips": exact(*flips),
        "trend": exact(trend.p),
        "fitted_change": exact(*inference.fitted_change(accuracies)[:3]),
        "holm": exact(*inference.holm([*flips, trend.p])),
    }


def exact(*values: float | None) -> str:
    return " ".join("None" if value is None else float(value).hex() for value in values)


def rounded(*values: float | None) -> str:
    return " ".join("None" if value is None else f"{value:.9f}" for value in values)


if __name__ == "__main__":
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    print(json.dumps({"simd": simd.get("found", []), "results": results()}, indent=4))
