"""Tiles as pure geometry: which pixels to read, to compute and to write. No images, no torch.

One axis of a section, cut into windows that all have the same size::

    section   |=============================================|        (true borders left and right)
    read 0    [-------------------------]                            starts are multiples of the stride
    read 1               [-------------------------]
    read 2                          [-------------------------]
    write     |------------------|-----------|----------------|
                                 :<-- >= halo

Every pixel is written by exactly one tile, at least a halo away from each edge of what that tile reads, save where
that edge is the section's own border: there is nothing to read beyond it, so tiles are clipped, and the network sees
the same border as it would in the whole section. Equal sizes let tiles share a batch and a compiled network.

A network with global context gives a pixel another result in every tile, so its tiles overlap and are blended. There
the starts depend on the section alone: a region of it takes those of the section's tiles that reach into it, so that
the same tiles with the same weights decide about a pixel, whatever region was asked for.

When image and network differ in pixel size, `Grid` says how their pixels correspond: reading is planned on the
network's grid, writing on the image's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

from napari_drososeg.errors import DrososegError

Region = tuple[slice, slice]
"""Two slices (y, x) with start and stop."""

BLEND_OVERLAP = 0.25
"""Part of a tile's edge shared with its neighbour where tiles are blended."""


@dataclass(frozen=True)
class Grid:
    """A section's pixels and the same section at the network's pixel size.

    Parameters
    ----------
    image : tuple of int
        Size (height, width) of the section in px.
    network : tuple of int
        Its size in px of the network. Pixel j of the network covers ``[j, j + 1) * image / network``, so both grids
        share their corners and no tile has a grid of its own.
    """

    image: tuple[int, int]
    network: tuple[int, int]

    @property
    def rescaled(self) -> bool:
        """Whether the two grids differ."""
        return self.image != self.network

    @classmethod
    def for_pixel_sizes(cls, image: tuple[int, int], pixel_size: float, network_pixel_size: float) -> Grid:
        """Build the grid for an image of `pixel_size` nm and a network trained at `network_pixel_size` nm."""
        factor = pixel_size / network_pixel_size
        height, width = (max(1, round(n * factor)) for n in image)
        return cls(image, (height, width))


@dataclass(frozen=True)
class Tile:
    """One piece of work in a section.

    Parameters
    ----------
    write : tuple of slice
        (y, x) on the image's grid: what this tile fills. Writes of a plan never overlap. Empty for a blended tile that
        reaches into the region asked for and fills nothing there.
    read : tuple of slice
        (y, x) on the network's grid: what the network sees. Starts and sizes are multiples of the stride, so that it
        may reach past the bottom or right border, by less than one stride; there the edge is replicated.
    reach : tuple of slice
        (y, x) on the image's grid: what this tile has results for. Equals `write` unless tiles are blended.
    ramps : tuple of tuple of int
        ((above, below), (left, right)): px over which this tile's weight falls to 0 within `reach`; 0 at a true border.
    grid : Grid
        The two grids.
    """

    write: Region
    read: Region
    reach: Region
    ramps: tuple[tuple[int, int], tuple[int, int]]
    grid: Grid

    def __hash__(self) -> int:  # slices have no hash before Python 3.12
        return hash(tuple((s.start, s.stop) for s in (*self.write, *self.read)))

    @property
    def writes(self) -> bool:
        """Whether this tile fills anything; if not, it is there for its neighbours."""
        return 0 not in self.write_shape

    @property
    def read_shape(self) -> tuple[int, int]:
        """Size (height, width) of what the network sees, px."""
        return _extent(self.read[0]), _extent(self.read[1])

    @property
    def write_shape(self) -> tuple[int, int]:
        """Size (height, width) of what is written, px."""
        return _extent(self.write[0]), _extent(self.write[1])


@dataclass(frozen=True)
class _Window:
    """One axis of a tile; see `Tile`."""

    write: slice
    read: slice
    reach: slice
    ramps: tuple[int, int]


def _extent(s: slice) -> int:
    return int(s.stop - s.start)


def align_down(n: int, stride: int) -> int:
    """Round `n` down to a multiple of `stride`."""
    return n // stride * stride


def align_up(n: int, stride: int) -> int:
    """Round `n` up to a multiple of `stride`."""
    return -(-n // stride) * stride


def global_halo(tile: int, stride: int) -> int:
    """Return the halo in px for tiles of a network with global context, which none makes exact.

    It is a quarter of a tile in whole strides. Small tiles have less, so that they can write at least a stride, and
    have something left to interpolate from where images are rescaled.
    """
    return max(0, min(align_up(tile // 4, stride), align_down((align_down(tile, stride) - stride - 1) // 2, stride)))


def resampling_margin(image: int, network: int) -> int:
    """Return the network px needed beside a written region to interpolate its border (0 where grids agree)."""
    return 0 if image == network else math.ceil(max(1.0, network / image)) + 1


def plan_tiles(
    grid: Grid,
    *,
    tile: int,
    halo: int,
    stride: int,
    roi: Region | None = None,
    blend: bool = False,
) -> list[Tile]:
    """Cut a section, or a region of it, into tiles.

    Parameters
    ----------
    grid : Grid
        The section.
    tile : int
        Longest edge in px that the network may see at once, halo included; rounded down to the stride. The tiles used
        are as much smaller as their number allows.
    halo : int
        Context in px of the network on each side; rounded up to the stride.
    stride : int
        The network's total stride, px.
    roi : tuple of slice, optional
        (y, x) on the image's grid; the whole section unless given.
    blend : bool
        Whether neighbours overlap by `BLEND_OVERLAP` and are to be merged by weight. Then the tiles are those of the
        whole section that reach into `roi`, of which they fill their part; what they read may reach past it by
        almost a tile on each side.

    Returns
    -------
    list of Tile
        In reading order. All of one plan read the same size. Together they fill `roi`, each pixel once.

    Raises
    ------
    DrososegError
        If `tile` has no room for the halo, or `roi` is not inside the section.
    """
    spans = check_region(grid.image, roi)
    rows, columns = (
        _axis(n, m, slice(0, n) if blend else span, tile=tile, halo=halo, stride=stride, blend=blend)
        for n, m, span in zip(grid.image, grid.network, spans, strict=True)
    )
    if blend:
        rows, columns = (
            [w for w in windows if w.reach.start < span.stop and span.start < w.reach.stop]
            for windows, span in zip((rows, columns), spans, strict=True)
        )
    tiles = [
        Tile((y.write, x.write), (y.read, x.read), (y.reach, x.reach), (y.ramps, x.ramps), grid)
        for y, x in product(rows, columns)
    ]
    return [_cut(t, spans) for t in tiles] if blend else tiles


def _cut(tile: Tile, region: Region) -> Tile:
    """Let a tile fill only its part of `region`. What it has results for stays, and so do its weights."""
    (y0, y1), (x0, x1) = (
        (min(max(w.start, r.start), r.stop), max(min(w.stop, r.stop), r.start))
        for w, r in zip(tile.write, region, strict=True)
    )
    write = slice(y0, y1), slice(x0, x1)
    return replace(tile, write=write, reach=write if tile.reach == tile.write else tile.reach)


def overlap(a: Region, b: Region) -> Region | None:
    """Return what two regions share, None for nothing."""
    ys, xs = (slice(max(i.start, j.start), min(i.stop, j.stop)) for i, j in zip(a, b, strict=True))
    return None if ys.start >= ys.stop or xs.start >= xs.stop else (ys, xs)


def check_region(shape: tuple[int, int], roi: Region | None) -> Region:
    """Return `roi` with explicit bounds.

    Raises
    ------
    DrososegError
        If it is empty, has a step or lies outside `shape`.
    """
    if roi is None:
        return slice(0, shape[0]), slice(0, shape[1])
    bounds = [(s.start or 0, n if s.stop is None else s.stop) for s, n in zip(roi, shape, strict=True)]
    if any(s.step not in (None, 1) for s in roi) or any(
        not 0 <= a < b <= n for (a, b), n in zip(bounds, shape, strict=True)
    ):
        where = ", ".join(f"{a}:{b}" for a, b in bounds)
        raise DrososegError(
            f"The region [{where}] is not inside a section of {shape[0]} x {shape[1]} px; choose one that is."
        )
    (y0, y1), (x0, x1) = bounds
    return slice(y0, y1), slice(x0, x1)


def _axis(image: int, network: int, span: slice, *, tile: int, halo: int, stride: int, blend: bool) -> list[_Window]:
    """Cut one axis; `image` and `network` are its lengths on the two grids, `span` is on the image's."""
    ratio = image / network
    needed = halo + resampling_margin(image, network)
    context = align_up(needed, stride)
    edge = align_down(tile, stride)
    if blend:  # neighbours share 2 * context px
        context = max(context, align_up(int(edge * BLEND_OVERLAP / 2), stride))
        # small tiles have no room for whole strides on each side: they share fewer
        room = align_down(edge - stride, 2 * stride if stride % 2 else stride) // 2
        context = room if needed <= room < context else context
    end = align_up(network, stride)
    first = align_down(max(0, math.floor(span.start / ratio) - context), stride)
    last = min(end, align_up(math.ceil(span.stop / ratio) + context, stride))
    if last - first <= edge:
        reads = [slice(first, last)]
    else:
        if edge <= 2 * context:
            raise DrososegError(
                f"Tiles of {tile} px have no room for a halo of {context} px on each side; "
                f"use tiles of at least {2 * context + stride} px, or a smaller halo."
            )
        reads = list(_equal_windows(first, last, edge, context, stride))
    return list(_windows(reads, span, image, network, blend=blend))


def _equal_windows(first: int, last: int, edge: int, context: int, stride: int) -> Iterator[slice]:
    """Cover [first, last) by as few windows of at most `edge` px as can be, all of one size, sharing >= 2 context."""
    n = math.ceil((last - first - 2 * context) / (edge - 2 * context))
    size = align_up(math.ceil((last - first - 2 * context) / n) + 2 * context, stride)
    for k in range(n):
        start = min(first + k * (size - 2 * context), last - size)
        yield slice(start, start + size)


def _windows(reads: list[slice], span: slice, image: int, network: int, *, blend: bool) -> Iterator[_Window]:
    """Give each read window its share of `span`: cuts are in the middle of what neighbours share."""

    def to_image(position: float) -> int:
        return round(position * image / network)

    cuts = [span.start]
    cuts += [to_image((a.stop + b.start) / 2) for a, b in pairwise(reads)]
    cuts.append(span.stop)
    margin = resampling_margin(image, network)
    for k, (read, start, stop) in enumerate(zip(reads, cuts[:-1], cuts[1:], strict=True)):
        if start >= stop:  # many network px in one image px: nothing is left for this window
            continue
        write = slice(start, stop)
        if not blend:
            yield _Window(write, read, write, (0, 0))
            continue
        low = span.start if k == 0 else min(start, to_image(read.start + margin))
        high = span.stop if k == len(reads) - 1 else max(stop, to_image(read.stop - margin))
        before = 0 if k == 0 else to_image(reads[k - 1].stop - margin) - low
        after = 0 if k == len(reads) - 1 else high - to_image(reads[k + 1].start + margin)
        yield _Window(write, read, slice(low, high), (max(0, before), max(0, after)))
