import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from normlab.data import augment


def apply(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    sources = augment.source_pixels(maps, augment.grid()).astype(np.int64)
    return np.take_along_axis(augment.pad(images), sources, axis=1).reshape(images.shape)


def near_a_tie(maps: np.ndarray) -> np.ndarray:
    """Pixels whose source lies between two pixels, where float rounding decides."""
    sources = maps.astype(np.float64) @ augment.grid() + augment.centre(augment.SIDE)
    return (np.abs(sources % 1 - 0.5) < 1e-4).any(axis=1).reshape(-1, 28, 28)


@settings(max_examples=60)
@given(
    st.floats(-180, 180),
    st.tuples(st.integers(-28, 28), st.integers(-28, 28)),
    st.floats(0.3, 3),
    st.floats(-60, 60),
    st.integers(0, 2**32 - 1),
)
def test_every_image_is_what_torchvision_makes_of_it(
    angle: float, shift: tuple[int, int], scale: float, shear: float, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(1, 256, (1, 28, 28), dtype=np.uint8)
    maps = augment.inverse_maps(
        np.array([angle]), np.array([shift], float), np.array([scale]), np.array([shear])
    )
    expected = affine(
        torch.from_numpy(image),
        angle,
        list(shift),
        scale,
        [shear, 0.0],
        interpolation=InterpolationMode.NEAREST,
    ).numpy()
    clear = ~near_a_tie(maps)
    np.testing.assert_array_equal(apply(image, maps)[clear], expected[clear])


def test_a_batch_is_its_images_one_by_one() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    maps = augment.draw(rng, 50, augment.Ranges(20, 0.2, (0.7, 1.3), 10))
    single = [apply(images[i : i + 1], maps[i : i + 1])[0] for i in range(50)]
    np.testing.assert_array_equal(apply(images, maps), single)


def test_torch_and_numpy_agree() -> None:
    maps = augment.draw(np.random.default_rng(0), 200, augment.Ranges(7, 0.1, (0.85, 1.15), 5))
    ours = augment.source_pixels(maps, augment.grid())
    theirs = augment.source_pixels(torch.from_numpy(maps), torch.from_numpy(augment.grid()))
    clear = ~near_a_tie(maps).reshape(200, -1)
    np.testing.assert_array_equal(ours[clear], theirs.numpy()[clear])


def test_the_identity_changes_nothing_and_what_enters_is_background() -> None:
    images = np.full((2, 28, 28), 200, dtype=np.uint8)
    still = augment.Ranges(0, 0, (1, 1), 0)
    np.testing.assert_array_equal(
        apply(images, augment.draw(np.random.default_rng(0), 2, still)), images
    )
    one = np.ones(2)
    shift = np.array([[3.0, 0.0], [0.0, -5.0]])
    right, up = apply(images, augment.inverse_maps(0 * one, shift, one, 0 * one))
    assert (right[:, :3] == 0).all()
    assert (right[:, 3:] == 200).all()
    assert (up[-5:] == 0).all()
    assert (up[:-5] == 200).all()


def test_draws_fill_their_ranges_evenly() -> None:
    ranges = augment.Ranges(rotation=30, translation=0.25, scale=(0.5, 2), shear=0)
    maps = augment.draw(np.random.default_rng(0), 20_000, ranges).astype(np.float64)
    linear = np.linalg.inv(maps[:, :, :2])
    scale = np.sqrt(np.linalg.det(linear))
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    shift = -np.einsum("nij,nj->ni", linear, maps[:, :, 2])
    for values, low, high in ((scale, 0.5, 2), (angle, -30, 30), (shift, -7, 7)):
        assert values.min() == pytest.approx(low, abs=0.02 * (high - low))
        assert values.max() == pytest.approx(high, abs=0.02 * (high - low))
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
    np.testing.assert_allclose(shift, shift.round(), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-40, 5e-324])
@pytest.mark.parametrize("shear", [0.0, float(np.nextafter(90, 0))])
def test_every_map_that_can_be_drawn_is_finite_and_reads_inside_the_padded_image(
    scale: float, shear: float
) -> None:
    ranges = augment.Ranges(rotation=180, translation=1, scale=(scale, scale), shear=shear)
    maps = augment.draw(np.random.default_rng(0), 1000, ranges)
    assert (np.abs(maps) <= augment.FARTHEST).all()
    sources = augment.source_pixels(maps, augment.grid())
    assert ((sources >= 0) & (sources < (augment.SIDE + 2) ** 2)).all()
