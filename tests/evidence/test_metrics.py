import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from normlab.evidence.metrics import (
    confusion_matrix,
    epochs_to_reach,
    expected_calibration_error,
    mean_log,
)

Floats = npt.NDArray[np.float64]


def looped_calibration_error(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(probabilities, labels, strict=True):
        top = int(np.argmax(row))
        index = next(m for m in range(15) if row[top] <= (m + 1) / 15)
        bins[index].append((float(row[top]), top == label))
    error = 0.0
    for members in bins:
        if members:
            accuracy = sum(correct for _, correct in members) / len(members)
            confidence = sum(top for top, _ in members) / len(members)
            error += len(members) / len(labels) * abs(accuracy - confidence)
    return error


@given(st.data())
@settings(max_examples=50)
def test_calibration_error_equals_a_loop_over_bins(data: st.DataObject) -> None:
    images, classes = data.draw(st.integers(1, 20)), data.draw(st.integers(2, 4))
    edges = st.sampled_from([m / 15 for m in range(16)])
    chances = st.floats(0, 1) | edges
    probabilities = data.draw(hnp.arrays(np.float64, (images, classes), elements=chances))
    labels = data.draw(hnp.arrays(np.int64, images, elements=st.integers(0, classes - 1)))
    expected = looped_calibration_error(probabilities, labels)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_a_calibrated_predictor_is_noise() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(10, 0.2), size=100_000)
    labels = (generator.random((100_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    labels = np.minimum(labels, 9)
    assert expected_calibration_error(probabilities, labels) < 0.006
    # The same predictor made overconfident is no longer calibrated.
    sharper = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    assert expected_calibration_error(sharper, labels) > 0.05


def test_calibration_error_of_certainty_is_the_error_rate() -> None:
    certain = np.eye(10, dtype=np.float32)[np.zeros(8, dtype=np.int64)]
    assert expected_calibration_error(certain, [0, 0, 0, 0, 0, 0, 3, 4]) == 0.25


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "name"),
    [
        ([], [], 15, "probabilities"),
        ([0.5, 0.5], [0, 1], 15, "probabilities"),
        ([[0.5, math.nan]], [0], 15, "probabilities"),
        ([[1.5, -0.5]], [0], 15, "probabilities"),
        ([[0.5, 0.5]], [0, 1], 15, "labels"),
        ([[0.5, 0.5]], [0], 0, "bins"),
    ],
)
def test_calibration_error_refuses(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int, name: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        expected_calibration_error(probabilities, labels, bins)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_confusion_matrix_counts_each_pair(dtype: npt.DTypeLike) -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(10, size=(2, 1000)).astype(dtype)
    expected = np.zeros((10, 10), dtype=np.int64)
    for t, p in zip(true, predicted, strict=True):
        expected[t, p] += 1
    matrix = confusion_matrix(true, predicted)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)


def test_confusion_matrix_keeps_absent_classes() -> None:
    np.testing.assert_array_equal(
        confusion_matrix([0, 0], [0, 1], 3), [[1, 1, 0], [0] * 3, [0] * 3]
    )


@pytest.mark.parametrize(
    ("true", "predicted"),
    [([0, 1], [0]), ([0], [0, 1]), ([[0]], [[0]]), ([10], [0]), ([0], [-1])],
)
def test_confusion_matrix_refuses(true: npt.ArrayLike, predicted: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^true and predicted: "):
        confusion_matrix(true, predicted)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.97, 0.99, 0.97, 0.99], 2),
        ([0.5, 0.75, 1.0], 2.96),
        ([0.98, 0.98, 0.995], 2 + 2 / 3),
        ([0.99], 1),
        ([1.0, 0.2], 1),
        ([0.1, 0.2, 0.989], math.nan),
    ],
)
def test_epochs_to_reach(values: list[float], expected: float) -> None:
    assert epochs_to_reach(values, 0.99) == pytest.approx(expected, nan_ok=True)


curves = st.lists(st.floats(0.01, 1), min_size=1, max_size=9)


@given(curves, st.floats(0.01, 1))
def test_epochs_to_reach_is_where_the_line_crosses(values: list[float], threshold: float) -> None:
    found = epochs_to_reach(values, threshold)
    if math.isnan(found):
        assert max(values) < threshold
        return
    at = float(np.interp(found, range(1, len(values) + 1), values))
    assert found == 1 or at == pytest.approx(threshold)
    assert all(value < threshold for value in values[: math.ceil(found) - 1])


@given(curves, st.floats(0.1, 10))
def test_mean_log_counts_factors(values: list[float], factor: float) -> None:
    found = mean_log(values)
    assert found == pytest.approx(np.log(values).mean(), abs=1e-12)
    assert mean_log(values[::-1]) == found
    assert mean_log([factor * value for value in values]) == pytest.approx(found + math.log(factor))


def test_measures_of_curves_refuse() -> None:
    for values in ([], [[0.5]], [0.5, math.nan]):
        with pytest.raises(ValueError, match=r"^values: "):
            epochs_to_reach(values, 0.99)
        with pytest.raises(ValueError, match=r"^values: "):
            mean_log(values)
    with pytest.raises(ValueError, match=r"^values: got 0.0, allowed: above 0"):
        mean_log([0.5, 0])
