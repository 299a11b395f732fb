from __future__ import annotations

import numpy as np
import pytest

from napari_drososeg.data import Statistics, measure, normalise
from napari_drososeg.data.normalisation import CLIP


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_mean_zero_and_deviation_one_whatever_the_dtype(dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (200, 300)).astype(dtype)
    out = normalise(pixels, measure(pixels))
    assert out.dtype == np.float32
    assert out.mean() == pytest.approx(0, abs=1e-3)
    assert out.std() == pytest.approx(1, abs=1e-3)


def test_black_fill_does_not_shift_the_grey_values() -> None:
    tissue = np.random.default_rng(0).integers(50, 200, (128, 128)).astype(np.uint8)
    filled = np.zeros((256, 128), np.uint8)
    filled[:128] = tissue
    assert measure(filled) == measure(tissue)


def test_large_sections_are_sampled_well_enough() -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3000, 3000)).astype(np.uint8)
    assert measure(pixels).mean == pytest.approx(pixels.mean(), abs=0.2)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_becomes_zeros(value: int) -> None:
    pixels = np.full((4, 4), value, np.uint8)
    assert not normalise(pixels, measure(pixels)).any()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_is_not_constant(dtype: type) -> None:
    mask = np.zeros((10, 10), dtype)
    mask[:5] = 1
    out = normalise(mask, measure(mask))
    np.testing.assert_array_equal(out[:5], 1)
    np.testing.assert_array_equal(out[5:], -1)


def test_a_constant_image_of_a_number_that_has_no_exact_mean_becomes_zeros() -> None:
    pixels = np.full(3, 0.1)
    assert pixels.mean() != 0.1  # or this would show nothing
    assert not normalise(pixels, measure(pixels)).any()


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_grey_levels_far_from_zero_stay_apart(dtype: type) -> None:
    near = np.random.default_rng(0).integers(1, 255, (64, 64))
    far = (near + 2**31).astype(dtype)
    expected = normalise(near.astype(np.uint8), measure(near.astype(np.uint8)))
    np.testing.assert_allclose(normalise(far, measure(far)), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("invert", [False, True])
def test_ordinary_images_give_what_the_shipped_networks_were_trained_on(dtype: type, invert: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (256, 300)).astype(dtype)
    tissue = pixels[pixels != 0].astype(np.float64)
    mean, scale = np.float32(tissue.mean()), np.float32((-1 if invert else 1) / tissue.std())
    expected = np.clip((pixels.astype(np.float32) - mean) * scale, -CLIP, CLIP)
    assert measure(pixels) == Statistics(tissue.mean(), tissue.std())
    np.testing.assert_array_equal(normalise(pixels, measure(pixels), invert=invert), expected)


def test_not_a_number_does_not_enter_the_statistics() -> None:
    assert measure(np.array([[1.0, np.nan, 3.0]])) == Statistics(2.0, 1.0)


def test_inverting_the_image_and_asking_for_it_gives_the_same() -> None:
    pixels = np.random.default_rng(0).integers(1, 254, (64, 64)).astype(np.uint8)
    inverted = (255 - pixels).astype(np.uint8)
    np.testing.assert_allclose(
        normalise(inverted, measure(inverted), invert=True), normalise(pixels, measure(pixels)), atol=1e-5
    )


def test_a_hot_pixel_is_clipped() -> None:
    pixels = np.ones((100, 100), np.float32)
    pixels[::2] = 2
    pixels[0, 0] = 1e6
    assert normalise(pixels, Statistics(1.5, 0.5)).max() == CLIP
