"""Test-time augmentation: the network sees a tile rotated and mirrored, and its probabilities are averaged.

Tissue has no up and down, but a network's output changes a little when its image is rotated. The mean of several
outputs is correct more often than one, at that many times the cost. Each set of orientations is a group, so rotating an
image by one of them rotates the averaged labels and changes nothing else::

    1   as it is
    2   and rotated by half a turn
    4   and mirrored top to bottom, and left to right: these four keep height and width
    8   and all four with rows and columns exchanged: quarter turns, and mirrored at the diagonals
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.inference.child import Interrupted
from napari_drososeg.inference.engine import Engine, Output, decide

_STEPS = ((1, 1), (-1, -1), (-1, 1), (1, -1))
"""Along rows and columns: the first two are the half turn's group, all four that of the mirrors."""


def exchanges_axes(orientations: int) -> bool:
    """Whether some of so many orientations make a tile's width its height."""
    return orientations > len(_STEPS)


def averaging_bytes(n_classes: int) -> int:
    """Return the memory in bytes that averaging takes for one px, at most.

    That of three arrays of probabilities (the sum, the sum with axes exchanged, what is added to it) and two images.
    """
    return 4 * (3 * n_classes + 2)


class OrientedEngine:
    """An engine whose probabilities are the mean over several orientations, and whose labels follow from them.

    Orientations are computed one after the other, so that a tile and a batch take no more of a device's memory.

    Parameters
    ----------
    engine : Engine
        What computes each of them.
    orientations : int
        How many: 2, 4 or 8.
    n_classes : int
        Of the network.
    cancelled : callable, optional
        Asked before each orientation: all together take too long to wait for. When it says yes, `Interrupted` is
        raised.
    """

    def __init__(
        self, engine: Engine, orientations: int, n_classes: int, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._engine = engine
        self._cancelled = cancelled
        self._orientations = orientations
        self.on_cpu = engine.on_cpu
        # they are added up in main memory
        self.bytes_per_pixel = engine.bytes_per_pixel + (averaging_bytes(n_classes) if engine.on_cpu else 0)

    def infer(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run the network in every orientation; see `napari_drososeg.inference.engine.Engine`."""
        total = self._sum(images)
        if exchanges_axes(self._orientations):  # exchanged back once for all four: it is slow on large tiles
            total += self._sum(np.ascontiguousarray(images.swapaxes(-1, -2))).swapaxes(-1, -2)
        if output == "labels":  # the largest sum is the largest mean
            return np.stack([decide(scores) for scores in total])
        total /= self._orientations
        return total

    def _sum(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add up the probabilities in those orientations that keep height and width."""
        total = self._probabilities(images)
        for down, right in _STEPS[1 : self._orientations]:
            turned = np.ascontiguousarray(images[..., ::down, ::right])
            total += self._probabilities(turned)[..., ::down, ::right]
        return total

    def _probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._cancelled is not None and self._cancelled():
            raise Interrupted
        found: NDArray[np.float32] = self._engine.infer(images, "probabilities")
        return found
