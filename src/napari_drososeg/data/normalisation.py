"""Grey values on their way into a network: one function for training and prediction.

Statistics come from a whole section or a whole stack, never from a tile: a tile of pure cytoplasm must not be
stretched to look like membranes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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
    """

    method: Literal["mean-std"] = "mean-std"
    scope: Literal["section", "stack"] = "section"


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
        Pixels that are exactly 0 are left out, unless all are: aligned stacks are filled with black at their
        borders, which must not shift the tissue's grey values. Above `SAMPLE_PIXELS` a regular grid is sampled.

    Returns
    -------
    Statistics
        Of the finite pixels.
    """
    step = max(1, int(np.sqrt(pixels.size / SAMPLE_PIXELS)))
    sample = pixels[..., ::step, ::step] if pixels.ndim > 1 else pixels[::step]
    values = sample[sample != 0].astype(np.float64)
    values = values[np.isfinite(values)]
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
    out = pixels.astype(np.float32)
    out -= np.float32(statistics.mean)
    out *= np.float32(scale)
    np.clip(out, -CLIP, CLIP, out=out)
    return out
