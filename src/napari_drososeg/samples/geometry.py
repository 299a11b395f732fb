"""Where cells, membranes and mitochondria of the synthetic stack are: shapes that go on from section to section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SITE_SPACING = 68.0  # px; with the merging below it gives the real share of membrane
_SITE_STEP = 2.8  # px a section that a neurite wanders: neighbours in the real stack agree in 77 % of labels
_SWING = 8.0  # sections
_MITOCHONDRIA = 0.050  # share of pixels


@dataclass(frozen=True)
class Geometry:
    """One section before it is drawn.

    Parameters
    ----------
    cells : ndarray of int32, shape (Y, X)
        Cell numbers.
    depth : ndarray of float32, shape (Y, X)
        Distance in px to the nearest border between two cells.
    half_width : ndarray of float32, shape (Y, X)
        Half the width of the membrane there, in px.
    mitochondria : ndarray of float32, shape (Y, X)
        Distance in px to the rim of a mitochondrion: positive inside, 0 outside.
    angle : ndarray of float32, shape (Y, X)
        Direction of the cristae, where there is a mitochondrion.
    """

    cells: NDArray[np.int32]
    depth: Floats
    half_width: Floats
    mitochondria: Floats
    angle: Floats

    @property
    def membrane(self) -> Bools:
        """Pixels of cell membrane."""
        return np.asarray((self.depth < self.half_width) & (self.mitochondria <= 0))


class Noise:
    """Smooth noise of unit variance through the whole volume, evaluated one section at a time.

    Parameters
    ----------
    rng : Generator
        Source.
    shape : tuple of three int
        (Z, Y, X).
    scale : float
        Distance in px over which it changes.
    depth : float
        The same in sections.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int], scale: float, depth: float) -> None:
        self._scale, self._depth, self._shape = scale, depth, shape[1:]
        n = [int(s / d) + 6 for s, d in zip(shape, (depth, scale, scale), strict=True)]
        coarse = rng.standard_normal(n).astype(np.float32)
        self._grid = ndimage.spline_filter1d(ndimage.spline_filter1d(coarse, 3, axis=1), 3, axis=2)

    def section(self, z: int, drift: NDArray[np.float64]) -> Floats:
        """Return the noise (Y, X) of section `z`, moved by `drift` (y, x) px."""
        at = z / self._depth
        below, part = int(at), at - int(at)
        # Dividing by the norm keeps the variance the same between two planes of the grid as on them.
        plane = (self._grid[below] * (1 - part) + self._grid[below + 1] * part) / np.hypot(1 - part, part)
        out = ndimage.affine_transform(
            plane,
            np.full(2, 1 / self._scale),
            drift / self._scale + 2,
            self._shape,
            order=3,
            mode="mirror",  # a long stack may drift beyond the grid
            prefilter=False,
        )
        return np.asarray(out, np.float32)


def make_geometry(rng: np.random.Generator, shape: tuple[int, int, int]) -> list[Geometry]:
    """Make the sections of one volume.

    Parameters
    ----------
    rng : Generator
        All randomness comes from here.
    shape : tuple of three int
        (Z, Y, X).

    Returns
    -------
    list of Geometry
        One for each section.
    """
    steps = rng.normal(0, 1.6, (shape[0], 2))
    drifts = np.cumsum(steps, axis=0) - steps[0]
    parts = _cells(rng, shape, drifts)
    width = Noise(rng, shape, 45, 3)
    spots = Noise(rng, shape, 22, 2)
    widths = [
        (3.15 + 0.55 * width.section(z, d) + 2.2 * np.clip(spots.section(z, d) - 1.7, 0, 1.2)).clip(2.0, 6.5)
        for z, d in enumerate(drifts)
    ]
    depths = [depth for _, depth in parts]
    rims, angles = _mitochondria(rng, shape, parts, widths)
    return [
        Geometry(cells, depth, half, rim, angle)
        for (cells, _), depth, half, rim, angle in zip(parts, depths, widths, rims, angles, strict=True)
    ]


def _cells(
    rng: np.random.Generator, shape: tuple[int, int, int], drifts: NDArray[np.float64]
) -> list[tuple[NDArray[np.int32], Floats]]:
    """Cut each section into cells: a Voronoi diagram of wandering sites on warped ground, some sites joined."""
    margin = 80.0 + float(np.abs(drifts).max())
    size = np.array(shape[1:], float)
    # A grid with much jitter: of free random points many cells would be slivers.
    grid = [np.arange(-margin, n + margin, _SITE_SPACING) for n in size]
    sites = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2)
    sites += rng.normal(0, 0.3 * _SITE_SPACING, sites.shape)
    n_sites = len(sites)
    owner = _join(rng, sites)
    # Sites of one cell walk together, with a little of their own, so that cells keep their shape.
    pace = rng.normal(0, _SITE_STEP, (n_sites, 2))[owner] + rng.normal(0, 0.5, (n_sites, 2))
    phase = rng.uniform(0, 2 * np.pi, (n_sites, 1))[owner]
    bends = ((110, 8, 22), (40, 5, 6.5), (15, 4, 2.0))  # px, sections, amplitude in px
    warps = [(Noise(rng, shape, s, d), Noise(rng, shape, s, d), a) for s, d, a in bends]
    rows, columns = np.mgrid[: shape[1], : shape[2]].astype(np.float32)
    out = []
    for z, drift in enumerate(drifts):
        y, x = rows + np.float32(drift[0]), columns + np.float32(drift[1])
        for wy, wx, amplitude in warps:
            y += amplitude * wy.section(z, drift)
            x += amplitude * wx.section(z, drift)
        # To and fro, so that cells stay in the volume however many sections it has.
        tree = cKDTree(sites + pace * _SWING * np.sin(z / _SWING + phase))
        _, nearest = tree.query(np.stack([y.ravel(), x.ravel()], 1), workers=1)
        cells = owner[nearest].reshape(shape[1:]).astype(np.int32)
        out.append((cells, _depth(cells)))
    return out


def _join(rng: np.random.Generator, sites: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cell of each site: a few large cells take all sites near a random walk, small ones keep their own."""
    owner = np.arange(len(sites))
    tree = cKDTree(sites)
    for _ in range(len(sites) // 17):
        at = int(rng.integers(len(sites)))
        cell, heading = at, rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(30, 85)
        where = sites[at].copy()
        for _ in range(int(rng.integers(2, 7))):
            owner[tree.query_ball_point(where, radius)] = cell
            heading += rng.normal(0, 0.35)
            where += 42 * np.array([np.sin(heading), np.cos(heading)])
    return owner


def _depth(cells: NDArray[np.int32]) -> Floats:
    border = np.zeros(cells.shape, bool)
    border[1:] |= cells[1:] != cells[:-1]
    border[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    if not border.any():
        return np.full(cells.shape, float(max(cells.shape)), np.float32)
    return np.asarray(ndimage.distance_transform_edt(~border), np.float32)


def _mitochondria(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    parts: list[tuple[NDArray[np.int32], Floats]],
    widths: list[Floats],
) -> tuple[list[Floats], list[Floats]]:
    """Put bent ellipsoids into wide places of cells until they take their share of the volume."""
    rims = [np.zeros(shape[1:], np.float32) for _ in range(shape[0])]
    angles = [np.zeros(shape[1:], np.float32) for _ in range(shape[0])]
    ripple = Noise(rng, (shape[0], *shape[1:]), 20, 3)
    ripples = [ripple.section(z, np.zeros(2)) for z in range(shape[0])]
    wanted, have = _MITOCHONDRIA * np.prod(shape), 0
    for _ in range(60 + 40 * shape[0]):
        if have >= wanted:
            break
        z0 = int(rng.integers(shape[0]))
        cells, depth = parts[z0]
        y0, x0 = (int(rng.integers(n)) for n in shape[1:])
        if depth[y0, x0] < rng.uniform(18, 30):
            continue
        short = min(float(depth[y0, x0]) - 4, rng.uniform(15, 42))
        long, height = short * rng.uniform(1.1, 1.9), rng.uniform(2.5, 9)
        turn, slant = rng.uniform(0, np.pi), rng.normal(0, 3.5, 2)
        for z in range(max(0, int(z0 - height)), min(shape[0], int(z0 + height) + 1)):
            shrink = np.sqrt(max(0.0, 1 - ((z - z0) / height) ** 2))
            centre = np.array([y0, x0]) + slant * (z - z0)
            place = (centre, long * shrink, short * shrink, turn + 0.05 * (z - z0))
            have += _paint(rims[z], angles[z], parts[z], widths[z], ripples[z], place, int(cells[y0, x0]))
    return rims, angles


def _paint(
    rims: Floats,
    angles: Floats,
    part: tuple[NDArray[np.int32], Floats],
    width: Floats,
    ripple: Floats,
    place: tuple[NDArray[np.float64], float, float, float],
    cell: int,
) -> int:
    """Draw one ellipse, clipped to the inside of its cell; returns the number of pixels taken."""
    centre, long, short, turn = place
    reach = int(long * 1.4) + 2
    (y0, x0), (height, width_px) = centre.astype(int), rims.shape
    box = (slice(max(0, y0 - reach), min(height, y0 + reach)), slice(max(0, x0 - reach), min(width_px, x0 + reach)))
    if short < 8 or box[0].start >= box[0].stop or box[1].start >= box[1].stop:
        return 0
    y, x = np.mgrid[box].astype(np.float32)
    dy, dx = y - np.float32(centre[0]), x - np.float32(centre[1])
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    # A superellipse with a wavy rim; mitochondria are rather sausages than eggs.
    r = ((np.abs(along) / long) ** 2.6 + (np.abs(across) / short) ** 2.6) ** (1 / 2.6)
    cells, depth = part
    inside = (r < 1 + 0.07 * ripple[box]) & (cells[box] == cell) & (depth[box] > width[box] + 2.5) & (rims[box] <= 0)
    labelled, n = ndimage.label(inside)
    if n == 0:
        return 0
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    inside = labelled == sizes.argmax()
    if inside.sum() < 350:
        return 0
    rims[box][inside] = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1][inside]
    angles[box][inside] = turn
    return int(inside.sum())
