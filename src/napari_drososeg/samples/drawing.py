"""How the synthetic stack looks: grey levels of stained tissue, the microscope's noise, the knife's uneven sections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_drososeg.samples.geometry import Floats, Geometry


def draw_section(rng: np.random.Generator, geometry: Geometry, tints: Floats) -> NDArray[np.uint8]:
    """Draw one section.

    Parameters
    ----------
    rng : Generator
        All randomness comes from here.
    geometry : Geometry
        What to draw.
    tints : ndarray of float32
        Grey level of each cell's cytoplasm relative to the mean.

    Returns
    -------
    ndarray of uint8, shape (Y, X)
        Mean and spread near those of the real sections.
    """
    shape = geometry.depth.shape
    cytoplasm = 192 + tints[geometry.cells % len(tints)] + _grain(rng, shape)
    inside = (geometry.mitochondria <= 0) & (geometry.depth > geometry.half_width + 1)
    _organelles(rng, cytoplasm, inside, geometry)
    image = _mitochondria(rng, cytoplasm, geometry)
    image = _membrane(rng, image, geometry)
    # The section is 50 nm thick and the beam not a point: edges are soft, the counting noise is not.
    image = ndimage.gaussian_filter(image, 0.8)
    image += 13.0 * ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.55) / 0.5
    image = (image - 128) * rng.uniform(0.94, 1.06) + 128 + rng.normal(0, 5)
    if rng.random() < 0.2:  # now and then a section is thinner or stained worse
        image = (image - 128) * rng.uniform(0.75, 0.88) + 128 + rng.uniform(-14, 14)
    grey: NDArray[np.uint8] = np.rint(image).clip(0, 255).astype(np.uint8)
    return grey


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Floats:
    """Gaussian noise of unit variance and correlation length `sigma` px."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma, mode="wrap", truncate=3)
    return np.asarray(field * np.float32(2 * np.sqrt(np.pi) * sigma))


def _coarse(rng: np.random.Generator, shape: tuple[int, ...], scale: int) -> Floats:
    small = rng.standard_normal([n // scale + 5 for n in shape]).astype(np.float32)
    out = ndimage.affine_transform(small, np.full(2, 1 / scale), np.full(2, 1.5), shape, order=3)
    return np.asarray(out, np.float32)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Ribosomes and filaments: dark grains, denser in some places than in others."""
    fine, middle = _smooth(rng, shape, 1.7), _smooth(rng, shape, 3.6)
    density = np.exp(0.4 * _coarse(rng, shape, 40)).clip(0.4, 1.6)
    dark = 40 * np.clip(fine - 0.1, 0, None) ** 1.15 + 34 * np.clip(middle - 0.3, 0, None)
    return np.asarray(12 * _coarse(rng, shape, 60) - dark * density, np.float32)


def _organelles(rng: np.random.Generator, image: Floats, inside: NDArray[np.bool_], geometry: Geometry) -> None:
    """Vesicles in clusters (dark ring, pale inside), dense cores and cut microtubules, all within the cytoplasm."""
    area = image.size
    crowded = _coarse(rng, image.shape, 55) > 0.35
    for share, crowd in ((area // 600, True), (area // 3200, False)):
        ys, xs = rng.integers(image.shape[0], size=share), rng.integers(image.shape[1], size=share)
        for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
            if crowd and not crowded[y, x]:
                continue
            radius = rng.uniform(3.6, 6.2) if crowd else rng.uniform(4.5, 9.5)
            if geometry.depth[y, x] > radius + 5 and inside[y, x]:
                core = -60.0 if rng.random() < 0.03 else rng.uniform(-4, 16)
                _stamp(image, inside, (y, x), radius, rng.uniform(55, 110), core)
    n_tubules = area // 700
    ys, xs = rng.integers(image.shape[0], size=n_tubules), rng.integers(image.shape[1], size=n_tubules)
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        if inside[y, x]:
            _stamp(image, inside, (y, x), rng.uniform(0.8, 2.2), rng.uniform(25, 70), -20.0)


def _stamp(
    image: Floats, inside: NDArray[np.bool_], at: tuple[int, int], radius: float, ring: float, core: float
) -> None:
    reach = int(radius) + 4
    box = tuple(slice(max(0, c - reach), c + reach + 1) for c in at)
    y, x = np.ogrid[box[0].start : min(box[0].stop, image.shape[0]), box[1].start : min(box[1].stop, image.shape[1])]
    r = np.hypot(y - at[0], x - at[1]).astype(np.float32)
    change = -ring * np.exp(-(((r - radius) / 1.3) ** 2)) + core * (r < radius - 1)
    image[box] += np.where(inside[box], change, 0).astype(np.float32)


def _mitochondria(rng: np.random.Generator, image: Floats, geometry: Geometry) -> Floats:
    """Dark grainy matrix, pale cristae that run along it and break off, and a membrane of its own."""
    rim = geometry.mitochondria
    inside = rim > 0
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    across = columns * np.cos(geometry.angle) + rows * np.sin(geometry.angle)
    wave = np.sin(2 * np.pi * across / 12.5 + 2.0 * _coarse(rng, image.shape, 18))
    there = np.clip(1.2 + 2.0 * _coarse(rng, image.shape, 13), 0, 1) * np.clip((rim - 3.5) / 2, 0, 1)
    cristae = 100 * np.clip((wave - 0.35) / 0.5, 0, 1) * there
    matrix = 66 + cristae + 17 * _smooth(rng, image.shape, 1.3) + 9 * _coarse(rng, image.shape, 50)
    shell = np.exp(-(((rim - 2.5) / 2.0) ** 2)) * 30
    return np.where(inside, matrix - shell, image).astype(np.float32)


def _membrane(rng: np.random.Generator, image: Floats, geometry: Geometry) -> Floats:
    """Stained membranes: darkest in the middle, smeared where the membrane runs slantwise through the section."""
    slant = np.clip(_coarse(rng, image.shape, 34), 0, 2)
    reach = geometry.half_width * (0.84 + 0.25 * slant)
    cover = np.exp(-((geometry.depth / reach) ** 2.4))
    haze = 0.5 * (0.3 + slant) * np.exp(-geometry.depth / (5.0 + 5.0 * slant))
    grey = 14 + 16 * slant + 12 * _smooth(rng, image.shape, 2.0)
    amount = np.clip(cover * (0.96 - 0.08 * slant) + haze * (1 - cover), 0, 1)
    amount = np.where(geometry.mitochondria > 0, 0.35 * amount, amount)
    return np.asarray(image * (1 - amount) + grey * amount, np.float32)
