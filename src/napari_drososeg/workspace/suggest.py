"""Where to annotate next: sections and regions ranked by how much could be learnt there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.inference import Predictor
from napari_drososeg.io import Stack
from napari_drososeg.workspace.folder import Workspace

EDGE = 128
"""Edge in px of the image of the regions that are ranked: about what is on screen while painting."""

PART = 16 * EDGE
"""Edge in px of the parts of a section in which two networks are compared; tiles at their edges are computed again."""

SECTIONS = 16
"""Sections looked at, evenly spread over the stack."""

SETTLED = 0.05
"""Share of annotated pixels in a region from which nothing new is expected there."""


@dataclass(frozen=True)
class Suggestion:
    """A region to look at.

    Parameters
    ----------
    section : int
        z.
    ys, xs : slice
        Rows and columns in px of the image.
    score : float
        0 to 1; how undecided the network is there, or the share of pixels two networks label differently, less what is
        annotated already.
    """

    section: int
    ys: slice
    xs: slice
    score: float

    @property
    def centre(self) -> tuple[int, int]:
        """(y, x) in px."""
        return (self.ys.start + self.ys.stop) // 2, (self.xs.start + self.xs.stop) // 2


def suggest(
    workspace: Workspace,
    stack: Stack,
    predictor: Predictor,
    other: Predictor | None = None,
    *,
    sections: Iterable[int] | None = None,
) -> Iterator[Suggestion]:
    """Look for regions worth annotating; yields the best of each section as it is found.

    Parameters
    ----------
    workspace : Workspace
        Says what is annotated already; regions count the less the more of them is, and locked ones not at all.
    stack : Stack
        The image.
    predictor : Predictor
        The network in use. Its uncertainty counts (entropy of its probabilities).
    other : Predictor, optional
        Another network: then it counts where the two disagree.
    sections : iterable of int, optional
        Where to look; `SECTIONS` of them, evenly spread, unless given.

    Yields
    ------
    Suggestion
        One for each section. Sort them by `score`; close the generator to stop.
    """
    n = stack.n_sections
    chosen = list(sections) if sections is not None else spread(n)
    for z in chosen:
        doubt = _doubt(stack, z, predictor, other)
        doubt *= _unknown(workspace, z)
        k = int(doubt.argmax())
        row, column = divmod(k, doubt.shape[1])
        ys = slice(row * EDGE, min(stack.shape[1], (row + 1) * EDGE))
        xs = slice(column * EDGE, min(stack.shape[2], (column + 1) * EDGE))
        yield Suggestion(z, ys, xs, round(float(doubt[row, column]), 4))


def spread(n: int, most: int = SECTIONS) -> list[int]:
    """Return at most so many of `n` sections, evenly spaced, with the first and the last."""
    return [int(z) for z in np.unique(np.linspace(0, n - 1, min(n, most)).round())]


def _doubt(stack: Stack, z: int, predictor: Predictor, other: Predictor | None) -> NDArray[np.float64]:
    """Return the mean doubt in each region (rows, columns) of a section."""
    total = np.zeros((-(-stack.shape[1] // EDGE), -(-stack.shape[2] // EDGE)))
    pixels = np.zeros_like(total)
    for ys, xs, values in _values(stack, z, predictor, other):
        _add(total, ys, xs, values)
        _add(pixels, ys, xs, np.ones(values.shape, np.float32))
    return total / np.maximum(pixels, 1)


def _values(
    stack: Stack, z: int, predictor: Predictor, other: Predictor | None
) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Yield the doubt of each pixel of a section, part by part."""
    if other is None:
        for result in predictor.run(stack, predictor.plan(stack, sections=[z]), outputs={"entropy"}):
            assert result.entropy is not None
            yield *result.slices, result.entropy.astype(np.float32)
        return
    _, height, width = stack.shape
    for top, left in product(range(0, height, PART), range(0, width, PART)):
        ys, xs = slice(top, min(top + PART, height)), slice(left, min(left + PART, width))
        labels = []
        for each in (predictor, other):
            found = np.zeros((ys.stop - ys.start, xs.stop - xs.start), np.uint8)
            for result in each.run(stack, each.plan(stack, sections=[z], roi=(ys, xs))):
                y, x = result.slices
                found[y.start - ys.start : y.stop - ys.start, x.start - xs.start : x.stop - xs.start] = result.labels
            labels.append(found)
        yield ys, xs, (labels[0] != labels[1]).astype(np.float32)


def _add(total: NDArray[np.float64], ys: slice, xs: slice, values: NDArray[np.float32]) -> None:
    """Add the pixels of a part of a section up in the regions they lie in."""
    rows, columns = (np.arange(s.start, s.stop) // EDGE for s in (ys, xs))
    by_row = np.add.reduceat(values, np.flatnonzero(np.diff(rows, prepend=-1)), axis=0)
    sums = np.add.reduceat(by_row, np.flatnonzero(np.diff(columns, prepend=-1)), axis=1)
    total[np.ix_(np.unique(rows), np.unique(columns))] += sums


def _unknown(workspace: Workspace, z: int) -> NDArray[np.float64]:
    """Return for each region of a section how new it is: 1 untouched, 0 settled or locked."""
    _, height, width = workspace.image.shape
    known = np.zeros((-(-height // EDGE), -(-width // EDGE)))
    for ys, xs in workspace.touched(z):
        labelled = (workspace.labels(z, ys, xs) != 0) | workspace.locked(z, ys, xs)
        _add(known, ys, xs, labelled.astype(np.float32))
    fresh: NDArray[np.float64] = np.clip(1 - known / EDGE**2 / SETTLED, 0, 1)
    return fresh
