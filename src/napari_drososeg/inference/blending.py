"""Merging overlapping tiles by a smooth weight, for networks whose context is the whole tile.

Such a network (attention, image pooling) gives slightly different results for the same pixel in two tiles. Where they
overlap, each tile's weight falls smoothly to zero, and what is added up is divided by the sum of weights.

Sums of floats depend on their order. Here it is that of the tiles in the section, however they come: two runs over two
regions, in two orders, give the same bits where they overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.inference.tiling import Region, Tile, overlap


def ramp(length: int, before: int, after: int) -> NDArray[np.float32]:
    """Weights along one axis: 1 in the middle, cos² slopes at the ends.

    Parameters
    ----------
    length : int
        Number of weights.
    before, after : int
        Length of the slopes; two neighbours that share n px and have slopes of n px there add up to 1.

    Returns
    -------
    ndarray of float32, (length,)
        Above 0 everywhere.
    """
    weights = np.ones(length, np.float32)
    for n, part in ((min(before, length), slice(None)), (min(after, length), slice(None, None, -1))):
        if n > 0:
            slope = np.sin(0.5 * np.pi * (np.arange(n, dtype=np.float32) + 0.5) / n) ** 2
            weights[part][:n] *= slope
    return weights


def tile_weights(tile: Tile) -> NDArray[np.float32]:
    """Return the weights (h, w) of a tile over its `reach`."""
    y, x = (ramp(s.stop - s.start, before, after) for s, (before, after) in zip(tile.reach, tile.ramps, strict=True))
    return y[:, None] * x[None, :]


def _reached(tiles: Sequence[Tile]) -> Iterator[NDArray[np.intp]]:
    """Yield for each tile the numbers of those whose `write` its `reach` overlaps.

    All of them are compared at once: a large section has thousands of tiles, so millions of pairs.
    """
    top, bottom, left, right = np.array([(y.start, y.stop, x.start, x.stop) for y, x in (t.write for t in tiles)]).T
    for ys, xs in (t.reach for t in tiles):
        rows = np.maximum(top, ys.start) < np.minimum(bottom, ys.stop)
        yield np.flatnonzero(rows & (np.maximum(left, xs.start) < np.minimum(right, xs.stop)))


def _within(region: Region, outer: Region) -> Region:
    """Return `region` in coordinates of `outer`."""
    ys, xs = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(region, outer, strict=True))
    return ys, xs


@dataclass(frozen=True)
class _Share:
    """What one tile adds to another's `write`: where in it, probabilities times weights (C, h, w), weights (h, w)."""

    where: Region
    weighted: NDArray[np.float32]
    weights: NDArray[np.float32]


class Blender:
    """Adds up tiles of one section and hands out each tile's `write` region as soon as nothing more reaches it.

    Memory is held only for regions that are waiting for a neighbour: one row of tiles when they come in reading
    order, whatever the size of the section. In another order more of it is held, since what comes before its turn
    waits to be added.

    Parameters
    ----------
    tiles : sequence of Tile
        Those that will be added, in any order. What is left out of a plan is simply not waited for.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        ordered = sorted(dict.fromkeys(tiles), key=lambda t: (t.read[0].start, t.read[1].start))
        self._targets = {t: [ordered[k] for k in found] for t, found in zip(ordered, _reached(ordered), strict=True)}
        self._missing: dict[Tile, list[Tile]] = {t: [] for t in ordered}  # in the order they are to be added in
        for t, targets in self._targets.items():
            for u in targets:
                self._missing[u].append(t)
        self._early: dict[Tile, dict[Tile, _Share]] = {}
        self._sums: dict[Tile, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def add(self, tile: Tile, probabilities: NDArray[np.float32]) -> list[tuple[Tile, NDArray[np.float32]]]:
        """Add a tile's probabilities.

        Parameters
        ----------
        tile : Tile
            One of those given at the start.
        probabilities : ndarray of float32, (C, h, w)
            Over ``tile.reach``.

        Returns
        -------
        list of (Tile, ndarray of float32 (C, h, w))
            Tiles whose `write` region is now complete, with their blended probabilities.
        """
        weights = tile_weights(tile)
        finished = []
        for target in self._targets[tile]:
            shared = overlap(tile.reach, target.write)
            assert shared is not None  # or it would not be a target
            here, there = _within(shared, tile.reach), _within(shared, target.write)
            early, missing = self._early.setdefault(target, {}), self._missing[target]
            early[tile] = _Share(there, probabilities[:, *here] * weights[here], weights[here])
            while missing and missing[0] in early:
                self._sum(target, early.pop(missing.pop(0)))
            if not missing:
                del self._early[target]
                total, total_weight = self._sums.pop(target)
                finished.append((target, total / total_weight))
        return finished

    def _sum(self, target: Tile, share: _Share) -> None:
        if target not in self._sums:
            shape = target.write_shape
            self._sums[target] = np.zeros((len(share.weighted), *shape), np.float32), np.zeros(shape, np.float32)
        total, total_weight = self._sums[target]
        total[:, *share.where] += share.weighted
        total_weight[share.where] += share.weights
