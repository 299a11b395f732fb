"""From a stack to what a network sees: statistics of sections, then tiles, normalised and on the network's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.data.normalisation import Normalisation, Statistics, measure, normalise
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.config import PredictConfig
from napari_drososeg.inference.rescaling import source_region, to_network
from napari_drososeg.inference.tiling import Grid, Tile, plan_tiles
from napari_drososeg.io import Stack

WHOLE_SECTION = 4096 * 4096
"""Sections up to this many px are read once, for their statistics and for all their tiles. Of larger ones only a
sample is read for statistics, and then each tile: they may be hundreds of MB, in chunks."""

SAMPLE_BLOCKS, SAMPLE_EDGE = 8, 256
"""The sample of a large section: so many blocks along each axis, of this edge in px."""

STACK_SECTIONS = 16
"""Sections looked at for the statistics of a whole stack."""

CALIBRATION_PATCHES, CALIBRATION_EDGE = 32, 256
"""What int8 is calibrated on: so many patches, spread over the stack, of this edge in px."""


class TileReader:
    """Reads and normalises the tiles of one stack. Used by one thread at a time.

    Parameters
    ----------
    stack : Stack
        The images.
    normalisation : Normalisation
        Of the network.
    config : PredictConfig
        Its `invert` and `fill_nan` are used.
    notify : callable
        Told of sections that are constant, once.
    statistics : mapping of int to Statistics, optional
        Of sections that were measured before. Of these only what a tile needs is read.
    """

    def __init__(
        self,
        stack: Stack,
        normalisation: Normalisation,
        config: PredictConfig,
        notify: Callable[[str], None],
        statistics: Mapping[int, Statistics] | None = None,
    ) -> None:
        self._stack = stack
        self._scope = normalisation.scope
        self._config = config
        self._notify = notify
        self._given = statistics or {}
        self._statistics: dict[int, Statistics] = {}
        self._stack_statistics: Statistics | None = None
        self._section: tuple[int, NDArray[Any]] | None = None
        self._told_constant = False

    def read(self, z: int, tile: Tile) -> NDArray[np.float32]:
        """Read one tile.

        Returns
        -------
        ndarray of float32, tile.read_shape
            Normalised, on the network's grid.

        Raises
        ------
        DrososegError
            If there is NaN or infinity in it and nothing to fill it with, or a value that its type cannot hold.
        """
        statistics = self.statistics(z)
        pixels = normalise(self._pixels(z, *source_region(tile)), statistics, invert=self._config.invert)
        return to_network(pixels, tile)

    def statistics(self, z: int) -> Statistics:
        """Return the statistics that section `z` is normalised with."""
        if z in self._given:
            return self._given[z]
        if self._scope == "stack":
            if self._stack_statistics is None:
                self._stack_statistics = self._measure_stack()
            return self._stack_statistics
        if z not in self._statistics:
            found = measure(self._sample(z))
            self._statistics[z] = found
            if found.std == 0 and not self._told_constant:
                self._told_constant = True
                self._notify(f"Section {z} of '{self._stack.name}' is constant: there is nothing to segment.")
        return self._statistics[z]

    def _measure_stack(self) -> Statistics:
        """Pool the statistics of evenly spaced sections; constant ones say nothing about the tissue."""
        n = self._stack.n_sections
        chosen = np.unique(np.linspace(0, n - 1, min(n, STACK_SECTIONS)).round().astype(int))
        parts = [measure(self._sample(int(z))) for z in chosen]
        parts = [p for p in parts if p.std > 0] or parts
        means, variances = np.array([p.mean for p in parts]), np.array([p.std**2 for p in parts])
        return Statistics(float(means.mean()), float(np.sqrt(variances.mean() + means.var())))

    def _sample(self, z: int) -> NDArray[Any]:
        """Return the section, or evenly spaced blocks of a large one, side by side."""
        _, height, width = self._stack.shape
        if height * width <= WHOLE_SECTION:
            return self._pixels(z, slice(0, height), slice(0, width))
        rows, columns = (_blocks(n) for n in (height, width))
        return np.concatenate([np.concatenate([self._pixels(z, y, x) for x in columns], axis=1) for y in rows])

    def _pixels(self, z: int, ys: slice, xs: slice) -> NDArray[Any]:
        _, height, width = self._stack.shape
        if height * width > WHOLE_SECTION or z in self._given:
            return self._finite(z, self._stack.read(z, ys, xs))
        if self._section is None or self._section[0] != z:
            self._section = (z, self._finite(z, self._stack.read(z)))
        return self._section[1][ys, xs]

    def _finite(self, z: int, pixels: NDArray[Any]) -> NDArray[Any]:
        if not np.issubdtype(pixels.dtype, np.floating):
            return pixels
        bad = ~np.isfinite(pixels)
        if not bad.any():
            return pixels
        if self._config.fill_nan is None:
            raise DrososegError(
                f"Section {z} of '{self._stack.name}' has {np.count_nonzero(bad)} pixels that are NaN or infinite; "
                "choose a grey value to replace them (--fill-nan; in napari under Advanced)."
            )
        with np.errstate(over="ignore"):
            value = np.array(self._config.fill_nan, pixels.dtype)
        if not np.isfinite(value):
            raise DrososegError(
                f"The value to fill NaN with, {self._config.fill_nan:g}, is too large for '{self._stack.name}', which "
                f"holds {pixels.dtype}; use a grey value of up to {np.finfo(pixels.dtype).max:g}."
            )
        return np.where(bad, value, pixels)


def _blocks(length: int) -> list[slice]:
    """Return evenly spaced parts of an axis."""
    edge = min(SAMPLE_EDGE, length)
    starts = np.unique(np.linspace(0, length - edge, SAMPLE_BLOCKS).astype(int))
    return [slice(int(s), int(s) + edge) for s in starts]


def spread_patches(reader: TileReader, grid: Grid, stride: int, n_sections: int) -> list[NDArray[np.float32]]:
    """Read patches (1, 1, H, W) spread evenly over a stack, to calibrate int8 on.

    Parameters
    ----------
    reader : TileReader
        Of the stack.
    grid : Grid
        How its pixels and those of the network correspond.
    stride : int
        Of the network, px.
    n_sections : int
        Sections of the stack.
    """
    tiles = plan_tiles(grid, tile=max(CALIBRATION_EDGE, 3 * stride), halo=0, stride=stride)
    # through the golden ratio, so that neighbouring sections give different corners
    steps = np.arange(min(len(tiles) * n_sections, CALIBRATION_PATCHES))
    sections = np.linspace(0, n_sections - 1, len(steps)).round().astype(int)
    places = (steps * 0.6180339887 % 1.0 * len(tiles)).astype(int)
    return [reader.read(int(z), tiles[int(k)])[None, None] for z, k in zip(sections, places, strict=True)]
