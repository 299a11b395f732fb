"""Reviewed regions: parts of a section in which every label was confirmed by a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace.chunks import ChunkedLabels
from napari_drososeg.workspace.documents import damaged, read_json, write_json

Shown = Callable[[int, slice, slice], NDArray[np.uint8]]
"""``shown(z, ys, xs)`` -> labels (h, w): what the labels layer shows there."""

Point = tuple[float, float]


@dataclass(frozen=True)
class ReviewedRegion:
    """A reviewed part of one section.

    Parameters
    ----------
    number : int
        Identifies it within its workspace; never given twice.
    section : int
        z.
    polygon : tuple of (float, float)
        Corners (y, x) in px, where pixel (i, j) has its centre at (i, j); a rectangle has four. Empty for the whole
        section.
    locked : bool
        Whether it is kept for validation: it never trains, and rounds are compared on it.
    """

    number: int
    section: int
    polygon: tuple[Point, ...] = ()
    locked: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a whole section."""
        return not self.polygon

    def box(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns that hold it, inside a section of `shape` (Y, X); may be empty."""
        if self.whole:
            return slice(0, shape[0]), slice(0, shape[1])
        corners = np.asarray(self.polygon)
        low = np.ceil(corners.min(axis=0)).astype(int)
        high = np.floor(corners.max(axis=0)).astype(int) + 1
        y, x = (slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n))) for a, b, n in zip(low, high, shape, strict=True))
        return y, x

    def mask(self, ys: slice, xs: slice) -> NDArray[np.bool_]:
        """Tell which pixels of a box belong to it.

        Parameters
        ----------
        ys, xs : slice
            Rows and columns, with start and stop.

        Returns
        -------
        ndarray of bool, (h, w)
            Pixels whose centre lies inside the polygon, by the even-odd rule.
        """
        shape = ys.stop - ys.start, xs.stop - xs.start
        if self.whole:
            return np.ones(shape, np.bool_)
        crossings = np.zeros((shape[0], shape[1] + 1), np.bool_)
        for (y0, x0), (y1, x1) in zip(self.polygon, (*self.polygon[1:], self.polygon[0]), strict=True):
            if y0 == y1:
                continue
            first, last = (int(np.ceil(v)) for v in sorted((y0, y1)))
            rows = np.arange(max(first, ys.start), min(last, ys.stop))
            columns = np.ceil(x0 + (rows - y0) / (y1 - y0) * (x1 - x0)).astype(int)
            crossings[rows - ys.start, np.clip(columns, xs.start, xs.stop) - xs.start] ^= True
        inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossings, axis=1)[:, :-1]
        return inside

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "number": self.number,
            "section": self.section,
            "polygon": [list(p) for p in self.polygon],
            "locked": self.locked,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ReviewedRegion:
        """Build a region from what `to_dict` returns."""
        polygon = tuple((float(y), float(x)) for y, x in plain["polygon"])
        return cls(int(plain["number"]), int(plain["section"]), polygon, bool(plain["locked"]))


def rectangle(ys: slice, xs: slice) -> tuple[Point, ...]:
    """Return the polygon that holds exactly the pixels of a box."""
    y0, y1, x0, x1 = ys.start - 0.5, ys.stop - 0.5, xs.start - 0.5, xs.stop - 0.5
    return ((y0, x0), (y0, x1), (y1, x1), (y1, x0))


def check_polygon(polygon: Sequence[Sequence[float]]) -> tuple[Point, ...]:
    """Return corners as plain numbers.

    Raises
    ------
    DrososegError
        If there are fewer than three, or one is not finite.
    """
    points = tuple((float(y), float(x)) for y, x in polygon)
    if len(points) < 3 or not np.isfinite(points).all():
        raise DrososegError("A reviewed region needs at least three corners: draw it again.")
    return points


class ReviewedRegions:
    """The reviewed regions of a workspace, with the labels that were confirmed in them.

    Parameters
    ----------
    path : Path
        ``regions.json``.
    labels : ChunkedLabels
        Where confirmed labels are kept.

    Raises
    ------
    DrososegError
        If the file is damaged.
    """

    def __init__(self, path: Path, labels: ChunkedLabels) -> None:
        self.path, self.labels = path, labels
        self._regions: list[ReviewedRegion] = []
        self._next = 1
        if path.exists():
            plain = read_json(path)
            try:
                self._regions = [ReviewedRegion.from_dict(r) for r in plain["regions"]]
                self._next = int(plain["next"])
            except (KeyError, TypeError, ValueError) as error:
                raise damaged(path, error) from error

    def __iter__(self) -> Iterator[ReviewedRegion]:
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def find(self, number: int) -> ReviewedRegion:
        """Return a region.

        Raises
        ------
        DrososegError
            If there is none of that number.
        """
        for region in self._regions:
            if region.number == number:
                return region
        raise DrososegError(f"There is no reviewed region {number}.")

    def add(self, section: int, polygon: Sequence[Point] = (), *, shown: Shown, locked: bool = False) -> ReviewedRegion:
        """Confirm every label in a region: what the layer shows there now is right, and stays.

        Parameters
        ----------
        section : int
            z.
        polygon : sequence of (float, float)
            Corners (y, x); the whole section if empty.
        shown : callable
            ``shown(z, ys, xs)`` gives what the labels layer shows; read piece by piece. Pixels that show 0 are not
            confirmed.
        locked : bool
            Whether the region is kept for validation.

        Returns
        -------
        ReviewedRegion

        Raises
        ------
        DrososegError
            If there is no such section, the region is empty or nothing in it is labelled, or the disk is full.
        """
        if not 0 <= section < self.labels.shape[0]:
            raise DrososegError(f"There is no section {section}; the image has 0 to {self.labels.shape[0] - 1}.")
        region = ReviewedRegion(self._next, section, check_polygon(polygon) if len(polygon) else (), locked)
        parts = [p for p in self._parts(region) if (region.mask(*p) & (shown(section, *p) != 0)).any()]
        if not parts:
            raise DrososegError("Nothing is labelled in this region: segment it, or paint in it, before reviewing it.")
        # The list first: were it lost, nobody could take the labels back.
        self._save([*self._regions, region], self._next + 1)
        for ys, xs in parts:
            old, new = self.labels.read(section, ys, xs), shown(section, ys, xs)
            self.labels.write(section, ys, xs, np.where(region.mask(ys, xs) & (new != 0), new, old))
        return region

    def remove(self, number: int) -> None:
        """Take a review back: its labels are the network's again, unless painted or in another region."""
        region = self.find(number)
        others = [r for r in self._regions if r.section == region.section and r.number != number]
        for ys, xs in self._parts(region):
            gone = region.mask(ys, xs)
            for other in others:
                gone &= ~other.mask(ys, xs)
            old = self.labels.read(region.section, ys, xs)
            self.labels.write(region.section, ys, xs, np.where(gone, np.uint8(0), old))
        self._save([r for r in self._regions if r.number != number], self._next)

    def lock(self, number: int, locked: bool = True) -> None:
        """Keep a region for validation, or let it train again."""
        changed = replace(self.find(number), locked=locked)
        self._save([changed if r.number == number else r for r in self._regions], self._next)

    def locked(self, z: int, ys: slice, xs: slice) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a box are kept for validation; `ys` and `xs` have start and stop."""
        mask = np.zeros((ys.stop - ys.start, xs.stop - xs.start), np.bool_)
        for region in self._regions:
            if region.locked and region.section == z:
                mask |= region.mask(ys, xs)
        return mask

    def _parts(self, region: ReviewedRegion) -> list[tuple[slice, slice]]:
        """Cut a region's box along the chunks, so that little is in memory at a time."""
        ys, xs = region.box(self.labels.shape[1:])
        if ys.stop <= ys.start or xs.stop <= xs.start:
            return []
        boxes = (self.labels.box(key) for key, _, _ in self.labels.keys_of(region.section, ys, xs))
        return [
            (slice(max(y.start, ys.start), min(y.stop, ys.stop)), slice(max(x.start, xs.start), min(x.stop, xs.stop)))
            for y, x in boxes
        ]

    def _save(self, regions: list[ReviewedRegion], following: int) -> None:
        write_json(self.path, {"regions": [r.to_dict() for r in regions], "next": following})
        self._regions, self._next = regions, following
