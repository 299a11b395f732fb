"""What a round learns from: windows of annotated sections, as the network sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.checkpoint import NetworkSpec
from napari_drososeg.inference import rescaling
from napari_drososeg.inference.config import PredictConfig
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.inference.tiling import Grid, Tile
from napari_drososeg.io import Stack
from napari_drososeg.workspace.folder import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = 128
"""Pixels of the network read around what is annotated, as context and for distillation."""

WHOLE = 1024
"""Sections up to this edge in px of the network are one window."""

LARGEST = 2048
"""Edge in px of the network of the largest window."""

MOST_PIXELS = 32 << 20
"""Of all windows of a round. Beyond, windows are left out evenly: nobody paints that much, but a reviewed section may
be huge."""

Box = tuple[int, int, int, int]
"""(y0, y1, x0, x1) on the network's grid."""


@dataclass(frozen=True)
class Window:
    """A part of an annotated section on the network's grid.

    Parameters
    ----------
    section : int
        z.
    tile : Tile
        Where it lies on both grids.
    image : ndarray of float32, (h, w)
        Normalised.
    labels : ndarray of uint8, (h, w)
        What trains; 0 elsewhere.
    validation : ndarray of uint8, (h, w)
        What rounds are compared on; 0 elsewhere.
    """

    section: int
    tile: Tile
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    validation: NDArray[np.uint8]


def grid_for(stack: Stack, spec: NetworkSpec, pixel_size: float | None) -> Grid:
    """Return how an image's pixels and a network's correspond, as `napari_drososeg.inference.Predictor` sees them.

    Raises
    ------
    DrososegError
        If they are too different in size to be meant.
    """
    return rescaling.grid_for(stack.shape[1:], pixel_size or stack.pixel_size, spec.pixel_size, name=stack.name)


def read_windows(
    workspace: Workspace,
    stack: Stack,
    spec: NetworkSpec,
    config: PredictConfig,
    notify: Callable[[str], None],
) -> list[Window]:
    """Read all that is annotated in a workspace.

    Parameters
    ----------
    workspace : Workspace
        With the annotation.
    stack : Stack
        Its image.
    spec : NetworkSpec
        Of the network that will learn: normalisation and pixel size.
    config : PredictConfig
        Its `pixel_size`, `invert` and `fill_nan` are used.
    notify : callable
        Told what a user should know.

    Returns
    -------
    list of Window
        Together they hold every annotated pixel, but for very large annotations; see `MOST_PIXELS`.

    Raises
    ------
    DrososegError
        If the image holds NaN and nothing to fill it with, or its pixels are of a size that cannot be meant.
    """
    grid = grid_for(stack, spec, config.pixel_size)
    reader = TileReader(stack, spec.normalisation, config, notify)
    places = [(z, box) for z in workspace.sections for box in annotated_boxes(workspace, z, grid)]
    total = sum((b[1] - b[0]) * (b[3] - b[2]) for _, b in places)
    if total > MOST_PIXELS:
        kept = max(1, int(len(places) * MOST_PIXELS / total))
        notify(f"Too much is annotated to use at once; training uses {kept} of {len(places)} evenly spaced regions.")
        places = [places[int(k)] for k in np.linspace(0, len(places) - 1, kept).round()]
    return [read_window(workspace, reader, grid, z, box) for z, box in places]


def read_window(workspace: Workspace, reader: TileReader, grid: Grid, z: int, box: Box) -> Window:
    """Read one window; see `read_windows`."""
    tile = tile_at(grid, box)
    rows, columns = (
        _nearest(n, m, a, b) for n, m, (a, b) in zip(grid.image, grid.network, (box[:2], box[2:]), strict=True)
    )
    ys, xs = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    where = np.ix_(rows - ys.start, columns - xs.start)
    labels, locked = workspace.labels(z, ys, xs)[where], workspace.locked(z, ys, xs)[where]
    return Window(
        z, tile, reader.read(z, tile), np.where(locked, np.uint8(0), labels), np.where(locked, labels, np.uint8(0))
    )


def tile_at(grid: Grid, box: Box) -> Tile:
    """Return the tile that reads exactly a box of the network's grid."""
    read = slice(box[0], box[1]), slice(box[2], box[3])
    write = tuple(
        slice(round(s.start * n / m), max(round(s.start * n / m) + 1, round(s.stop * n / m)))
        for s, n, m in zip(read, grid.image, grid.network, strict=True)
    )
    return Tile(write, read, write, ((0, 0), (0, 0)), grid)  # type: ignore[arg-type]


def _nearest(image: int, network: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return the image px nearest to network px ``start`` to ``stop`` along an axis."""
    centres = (np.arange(start, stop) + 0.5) * image / network
    return np.minimum(centres.astype(np.int64), image - 1)


def annotated_boxes(workspace: Workspace, z: int, grid: Grid) -> list[Box]:
    """Return boxes on the network's grid that hold what is annotated in a section, with context; none overlap."""
    n_y, n_x = grid.network
    touched = workspace.touched(z)
    if not touched:
        return []
    if max(n_y, n_x) <= WHOLE:
        return [(0, n_y, 0, n_x)]
    boxes = []
    for ys, xs in touched:
        known = workspace.labels(z, ys, xs)
        if not known.any():
            continue
        y, x = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
        corners = (ys.start + y[0], ys.start + y[-1] + 1, xs.start + x[0], xs.start + x[-1] + 1)
        boxes.append(_grown(corners, grid))
    return [piece for box in _merged(boxes) for piece in _pieces(box)]


def _grown(box: Any, grid: Grid) -> Box:
    """Bring a box of the image to the network's grid, and add context."""
    out: list[int] = []
    for (a, b), n, m in zip((box[:2], box[2:]), grid.image, grid.network, strict=True):
        out += [max(0, int(a * m / n) - CONTEXT), min(m, int(np.ceil(b * m / n)) + CONTEXT)]
    return out[0], out[1], out[2], out[3]


def _merged(boxes: list[Box]) -> list[Box]:
    """Replace boxes that overlap by one around them, until none do."""
    waiting = list(boxes)
    done: list[Box] = []
    while waiting:
        a = waiting.pop()
        for b in done:
            if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]:
                done.remove(b)
                waiting.append((min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])))
                break
        else:
            done.append(a)
    return sorted(done)


def _pieces(box: Box) -> Iterator[Box]:
    """Cut a box into equal parts of at most `LARGEST`."""
    cuts = []
    for a, b in (box[:2], box[2:]):
        cuts.append(np.linspace(a, b, -(-(b - a) // LARGEST) + 1).round().astype(int).tolist())
    for y0, y1 in zip(cuts[0][:-1], cuts[0][1:], strict=True):
        for x0, x1 in zip(cuts[1][:-1], cuts[1][1:], strict=True):
            yield y0, y1, x0, x1
