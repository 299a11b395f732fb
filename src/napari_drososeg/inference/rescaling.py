"""Resampling between an image's grid and a network's, tile by tile on one common grid.

A triangle filter in both directions: linear interpolation where pixels become smaller, an antialiased average where
they become larger. The weights of a pixel depend on its place in the section alone, so tiles agree at their seams.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.tiling import Grid, Region, Tile

RESCALE_ABOVE = 1.15
"""Images whose pixel size differs from the network's by more than this factor are rescaled."""

RESCALE_AT_MOST = 16.0
"""Beyond this factor the pixel size is taken for a mistake, such as the resolution of a screen."""


def scale_for(pixel_size: float | None, network: float) -> float:
    """Return by which factor an image is scaled for a network: 1 where their pixel sizes (nm) are close or unknown."""
    scale = pixel_size / network if pixel_size else 1.0
    return scale if max(scale, 1 / scale) > RESCALE_ABOVE else 1.0


def grid_for(shape: tuple[int, int], pixel_size: float | None, network: float, *, name: str) -> Grid:
    """Return how the pixels of a section and of a network correspond.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the section.
    pixel_size, network : float
        In-plane pixel sizes in nm; None is taken for the network's own.
    name : str
        Of the stack, for the error.

    Raises
    ------
    DrososegError
        If the sizes differ by more than `RESCALE_AT_MOST`.
    """
    scale = scale_for(pixel_size, network)
    if pixel_size is None or scale == 1:
        return Grid(shape, shape)
    if max(scale, 1 / scale) > RESCALE_AT_MOST:
        raise DrososegError(
            f"The pixel size of '{name}', {pixel_size:g} nm, differs from the network's {network:g} nm by more than "
            f"a factor of {RESCALE_AT_MOST:g}: check its unit, or give the pixel size yourself."
        )
    return Grid.for_pixel_sizes(shape, pixel_size, network)


@lru_cache(maxsize=64)
def axis_weights(size_in: int, size_out: int, start: int, stop: int) -> tuple[slice, Any]:
    """Weights that resample one axis.

    Parameters
    ----------
    size_in, size_out : int
        Lengths of the whole axis before and after; their corners coincide.
    start, stop : int
        Wanted part of the axis after; within [0, size_out].

    Returns
    -------
    source : slice
        Needed part of the axis before.
    weights : scipy.sparse.csr_array of float32, (stop - start, length of source)
        Rows add up to 1.
    """
    from scipy import sparse

    scale = size_in / size_out
    support = max(1.0, scale)
    centres = (np.arange(start, stop) + 0.5) * scale - 0.5
    low = np.floor(centres - support).astype(np.int64) + 1
    taps = int(np.ceil(2 * support)) + 1
    columns = low[:, None] + np.arange(taps)
    values = np.maximum(0.0, 1.0 - np.abs(columns - centres[:, None]) / support)
    columns = np.clip(columns, 0, size_in - 1)  # beyond the border the edge is replicated
    used = columns[values > 0]
    source = slice(int(used.min()), int(used.max()) + 1)
    values /= values.sum(axis=1, keepdims=True)
    columns = np.clip(columns, source.start, source.stop - 1) - source.start
    rows = np.repeat(np.arange(len(centres)), taps)
    weights = sparse.coo_array(
        (values.ravel().astype(np.float32), (rows, columns.ravel())),
        shape=(len(centres), source.stop - source.start),
    ).tocsr()
    return source, weights


def source_region(tile: Tile) -> Region:
    """Return the image pixels (y, x) that a tile's `read` region is made of."""
    parts = []
    for image, network, read in zip(tile.grid.image, tile.grid.network, tile.read, strict=True):
        stop = min(read.stop, network)
        if image == network:
            parts.append(slice(read.start, stop))
        else:
            parts.append(axis_weights(image, network, read.start, stop)[0])
    return parts[0], parts[1]


def to_network(pixels: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
    """Bring image pixels to the network's grid and pad them.

    Parameters
    ----------
    pixels : ndarray of float32, (h, w)
        The image over ``source_region(tile)``.
    tile : Tile
        The tile.

    Returns
    -------
    ndarray of float32, tile.read_shape
        Edge-replicated where ``tile.read`` reaches past the section's bottom or right border.
    """
    ys, xs = tile.read
    if tile.grid.rescaled:
        (height, width), (rows, columns) = tile.grid.image, tile.grid.network
        y = axis_weights(height, rows, ys.start, min(ys.stop, rows))[1]
        x = axis_weights(width, columns, xs.start, min(xs.stop, columns))[1]
        pixels = (x @ (y @ pixels).T).T
    bottom, right = tile.read_shape[0] - pixels.shape[0], tile.read_shape[1] - pixels.shape[1]
    if bottom or right:
        pixels = np.pad(pixels, ((0, bottom), (0, right)), mode="edge")
    return np.ascontiguousarray(pixels, dtype=np.float32)


def to_image(values: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
    """Bring probabilities from the network's grid back to the image's, over ``tile.reach``.

    Parameters
    ----------
    values : ndarray of float32, (C, *tile.read_shape)
        What the network gave for the tile.
    tile : Tile
        The tile.

    Returns
    -------
    ndarray of float32, (C, h, w)
        Linearly interpolated.
    """
    return cast("NDArray[np.float32]", crop(values, tile)) if not tile.grid.rescaled else _interpolate(values, tile)


def crop(values: NDArray[Any], tile: Tile) -> NDArray[Any]:
    """Cut ``tile.reach`` out of (..., *tile.read_shape), where image and network share one grid."""
    ys, xs = (
        slice(reach.start - read.start, reach.stop - read.start)
        for reach, read in zip(tile.reach, tile.read, strict=True)
    )
    return values[..., ys, xs]


def _interpolate(values: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
    parts = []
    for image, network, read, reach in zip(tile.grid.image, tile.grid.network, tile.read, tile.reach, strict=True):
        source, weights = axis_weights(network, image, reach.start, reach.stop)
        parts.append((slice(source.start - read.start, source.stop - read.start), weights))
    (ys, y), (xs, x) = parts
    return np.stack([(x @ (y @ channel[ys, xs]).T).T for channel in values]).astype(np.float32, copy=False)
