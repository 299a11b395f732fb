"""The hint that an image is inverted: no false alarm, whatever part of the stacks that we have is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_drososeg.data.contrast import is_bright_on_dark, looks_inverted
from napari_drososeg.io import as_stack
from napari_drososeg.samples import drosophila_vnc, synthetic_stack


def crops(stack: np.ndarray, edge: int, n: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(3)
    for k in range(n):
        y, x = (int(random.integers(m - edge + 1)) for m in stack.shape[1:])
        yield stack[k % len(stack), y : y + edge, x : x + edge]


def check(stack: np.ndarray) -> None:
    """No alarm for any crop in any contrast, and one for the inverted stack."""
    assert not looks_inverted(as_stack(stack))
    assert looks_inverted(as_stack(255 - stack))
    assert looks_inverted(as_stack((255 - stack).astype(np.uint16) * 200 + 7))
    assert looks_inverted(as_stack(-stack.astype(np.float32)))
    for edge in (128, 256, 400):
        for crop in crops(stack, edge, 24):
            assert not is_bright_on_dark(crop)
    noise = np.random.default_rng(4)
    for crop in map(np.float32, crops(stack, 400, 6)):
        for changed in (
            255 * (crop / 255) ** 0.4,
            255 * (crop / 255) ** 2.5,
            np.clip(2 * crop - 180, 0, 255),
            crop + noise.normal(0, 60, crop.shape),
            ndimage.gaussian_filter(crop, 2),
            ndimage.zoom(crop, 2, order=1),
            ndimage.zoom(crop, 0.7, order=1),
            np.pad(crop, ((0, 0), (0, 200))),
            np.pad(crop, ((0, 0), (0, 200)), constant_values=255),
        ):
            assert not is_bright_on_dark(changed)
        assert is_bright_on_dark(255 - 255 * (crop / 255) ** 0.7)


def test_the_synthetic_stack() -> None:
    check(np.asarray(synthetic_stack()[0].data))


def test_the_public_stack(vnc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROSOSEG_DATA", str(vnc))
    image, _ = drosophila_vnc()
    check(np.stack([image.read(z) for z in range(image.n_sections)]))


def test_where_there_is_nothing_to_tell() -> None:
    noise = np.random.default_rng(0).normal(100, 20, (2, 300, 300))
    noise[0, 150, 150] = np.nan
    for data in (
        noise,
        noise[1:],
        np.full((1, 300, 300), 7, np.uint8),
        255 - np.asarray(synthetic_stack()[0].data)[:, :200],
    ):
        assert not looks_inverted(as_stack(data))
