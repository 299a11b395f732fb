"""What every engine does: normalised pixels in, labels or probabilities out."""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

Output = Literal["labels", "probabilities"]


class Engine(Protocol):
    """A network on a device.

    Attributes
    ----------
    bytes_per_pixel : float
        Memory that one input px takes while the network runs, about.
    on_cpu : bool
        Whether it computes in main memory.
    """

    bytes_per_pixel: float
    on_cpu: bool

    def infer(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run the network.

        Parameters
        ----------
        images : ndarray of float32, (N, 1, H, W)
            Normalised; H and W are multiples of the network's stride.
        output : {"labels", "probabilities"}
            What is wanted.

        Returns
        -------
        ndarray
            uint8 (N, H, W) label values, or float32 (N, C, H, W) probabilities that add up to 1. It is
            the caller's to change.
        """
        ...


def decide(scores: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the label values (H, W) of the largest of `scores` (C, H, W); the first of equals.

    A running maximum: it reads every channel once, in order, and is several times faster than argmax over the first
    axis.
    """
    best = scores[0].copy()
    labels = np.ones(best.shape, np.uint8)
    for k in range(1, len(scores)):
        larger = scores[k] > best
        np.putmask(labels, larger, np.uint8(k + 1))
        np.maximum(best, scores[k], out=best)
    return labels


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return how undecided the network is, 0 (sure) to 1 (all classes alike).

    Parameters
    ----------
    probabilities : ndarray of float32, (C, H, W)
        Adding up to 1.

    Returns
    -------
    ndarray of float16, (H, W)
        Entropy divided by log(C).
    """
    if len(probabilities) < 2:
        return np.zeros(probabilities.shape[1:], np.float16)
    total = np.zeros(probabilities.shape[1:], np.float32)
    for p in probabilities:
        total -= p * np.log(np.maximum(p, np.float32(1e-12)))
    return cast("NDArray[np.float16]", np.clip(total / np.log(len(probabilities)), 0, 1).astype(np.float16))
