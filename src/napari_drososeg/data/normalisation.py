"""Grey values on their way into a network: one function for training and prediction.

Statistics come from a whole section or a whole stack, never from a tile: a tile of pure cytoplasm must not be
stretched to look like membranes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError

SAMPLE_PIXELS = 1 << 20
"""Statistics look at about this many pixels of a section, on a regular grid; enough for three digits."""

CLIP = 5.0
"""Normalised values are clipped to ±this, so that a hot pixel cannot saturate half precision."""


@dataclass(frozen=True)
class Normalisation:
    """How a network wants its grey values; part of its checkpoint.

    Parameters
    ----------
    method : str
        ``"mean-std"``: subtract the mean, divide by the standard deviation.
    scope : {"section", "stack"}
        What the statistics are taken over.

    Raises
    ------
    DrososegError
        For another method or scope, as a checkpoint of a later version may have.
    """

    method: Literal["mean-std"] = "mean-std"
    scope: Literal["section", "stack"] = "section"

    def __post_init__(self) -> None:
        if self.method != "mean-std" or self.scope not in ("section", "stack"):
            raise DrososegError(
                f"This program does not know the normalisation '{self.method}' over each '{self.scope}': "
                "update napari-drososeg."
            )


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the grey values, in the image's own unit; `std` is 0 for a constant image."""

    mean: float
    std: float


def measure(pixels: NDArray[Any]) -> Statistics:
    """Take the statistics of a section, or of a stack.

    Parameters
    ----------
    pixels : ndarray, any shape, real dtype
        Pixels that are exactly 0 are left out: aligned stacks are filled with black at their borders, which must
        not shift the tissue's grey values. They count where all others are equal, as in a mask of 0 and 1. Above
        `SAMPLE_PIXELS` a regular grid is sampled.

    Returns
    -------
    Statistics
        Of the finite pixels.
    """
    step = max(1, int(np.sqrt(pixels.size / SAMPLE_PIXELS)))
    sample = pixels[..., ::step, ::step] if pixels.ndim > 1 else pixels[::step]
    values = sample[sample != 0].astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size and values.min() == values.max():
        values = sample[np.isfinite(sample)].astype(np.float64)
        if values.min() == values.max():  # said here, as the mean of equal numbers need not be exactly that number
            return Statistics(float(values[0]), 0.0)
    if values.size == 0:
        return Statistics(0.0, 0.0)
    return Statistics(float(values.mean()), float(values.std()))


def normalise(pixels: NDArray[Any], statistics: Statistics, *, invert: bool = False) -> NDArray[np.float32]:
    """Bring grey values to mean 0 and standard deviation 1.

    Parameters
    ----------
    pixels : ndarray, any shape, real dtype
        Grey values.
    statistics : Statistics
        Of the section or stack the pixels belong to.
    invert : bool
        Whether the image is bright on dark; networks are trained on dark membranes.

    Returns
    -------
    ndarray of float32, same shape
        Clipped to ±`CLIP`; a constant image gives zeros.
    """
    scale = 1.0 / statistics.std if statistics.std > 0 else 0.0
    if invert:
        scale = -scale
    # Single precision has 24 bits: it cannot tell neighbouring grey levels apart far from 0 in wider types.
    wide = pixels.dtype.itemsize > 4 or (pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 4)
    number = np.float64 if wide else np.float32
    out: NDArray[Any] = pixels.astype(number)
    out -= number(statistics.mean)
    out *= number(scale)
    np.clip(out, -CLIP, CLIP, out=out)
    return out.astype(np.float32, copy=False)
