"""The arrays behind a result layer, and how a prediction gets into them without touching what the user painted.

No Qt here. Only the GUI thread may call `LabelsStore.write`: napari paints by reading, changing and writing back a
box of the same array, so a second writer would lose strokes.
"""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

IN_MEMORY_BYTES = 256 * 2**20
"""Label arrays above this size live in a zarr on disk."""
CHUNK = 1024
"""Edge in pixels of a chunk of the arrays on disk, and of the pieces in which results are written."""

NOTHING = np.uint8(255)
"""In `LabelsStore.under`: nothing was predicted below the user's pixel."""

Slices = tuple[slice, slice]
Pixels = NDArray[np.uint8]


def scratch_root() -> Path:
    """Folder in the user's cache for label arrays too large for memory."""
    from napari_drososeg.inference.cache import cache_folder

    return cache_folder() / "labels"


def new_scratch() -> Path:
    """Make a folder for one layer's arrays; folders of programs that have died are removed first."""
    import psutil

    # Caches are shared between machines and containers, whose process numbers say nothing about each other.
    root = scratch_root() / (platform.node() or "unknown")
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob("run-*"):
        pid = old.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=root))


def allocate(
    shape: tuple[int, ...], dtype: Any, folder: Path | None, name: str, *, chunk: tuple[int, int] = (CHUNK, CHUNK)
) -> Any:
    """Make an array of zeros: numpy, or a zarr in `folder`.

    Parameters
    ----------
    shape : tuple of int
        ``(..., Y, X)``.
    dtype : dtype
        Any numpy dtype.
    folder : Path or None
        None for memory.
    name : str
        Name of the zarr inside the folder.
    chunk : tuple of int
        Its chunks (h, w) inside a section.
    """
    if folder is None:
        return np.zeros(shape, dtype)
    import zarr
    from zarr.codecs import BloscCodec

    # lz4 at its lightest: these are written and read on the GUI thread
    return zarr.create_array(
        folder / f"{name}.zarr",
        shape=shape,
        chunks=(*(1 for _ in shape[:-2]), *map(min, chunk, shape[-2:])),
        dtype=dtype,
        compressors=BloscCodec(cname="lz4", clevel=1),
        fill_value=0,
        overwrite=True,
    )


def index_of(shape: tuple[int, ...], z: int, ys: slice, xs: slice) -> tuple[Any, ...]:
    """Index of a part of section `z` in an array of ``(Z, Y, X)`` or ``(Y, X)``."""
    return (ys, xs) if len(shape) == 2 else (z, ys, xs)


class Keeper(Protocol):
    """What keeps the pixels that are the user's, apart from every prediction."""

    n_classes: int
    """Values above it are not a class."""

    def absorb(self, z: int, slices: Slices, shown: Pixels, written: Pixels) -> int:
        """Take over what differs between the layer and what the program last wrote; returns the pixels refused."""

    def holds(self, z: int) -> bool:
        """Whether there may be anything of the user's in section `z`."""

    def known(self, z: int, slices: Slices) -> Pixels:
        """Return what the user said about a part of a section, 0 where nothing."""

    def settle(self, z: int, slices: Slices) -> None:
        """Note that the program has written to a part of a section, after what was there had been absorbed."""


class OwnAnnotation:
    """A keeper that lives and dies with one layer, for images without a workspace.

    Parameters
    ----------
    shape : tuple of int
        ``(Z, Y, X)`` or ``(Y, X)``.
    n_classes : int
        Classes of the network.
    folder : Path or None
        Where its array goes, None for memory.

    Attributes
    ----------
    annotation : array of uint8
        What the user painted, 0 for nothing.
    sections : set of int
        Those that hold any of it.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int, folder: Path | None) -> None:
        self.shape, self.n_classes = shape, n_classes
        self.annotation = allocate(shape, np.uint8, folder, "annotation")
        self.sections: set[int] = set()

    def absorb(self, z: int, slices: Slices, shown: Pixels, written: Pixels) -> int:
        """See `Keeper`."""
        changed = shown != written
        foreign = changed & (shown > self.n_classes)
        changed &= ~foreign
        if changed.any():
            at = index_of(self.shape, z, *slices)
            self.annotation[at] = np.where(changed, shown, np.asarray(self.annotation[at]))
            self.sections.add(z)
        return int(np.count_nonzero(foreign))

    def holds(self, z: int) -> bool:
        """See `Keeper`."""
        return z in self.sections

    def known(self, z: int, slices: Slices) -> Pixels:
        """See `Keeper`."""
        return np.asarray(self.annotation[index_of(self.shape, z, *slices)])

    def settle(self, z: int, slices: Slices) -> None:
        """See `Keeper`: what was absorbed is not looked at again anyway."""


class LabelsStore:
    """Labels of one image by one network, with the user's own pixels kept apart.

    Three arrays of the image's shape: `labels` is what the layer shows and the user paints on; `written` is what the
    program last put there; `under` is the prediction below the user's pixels. What differs between the first
    two is the user's: its `keeper` is told before every write. Values above the last class are not a class: such pixels
    count as not painted, and the next write puts back what belongs there.

    Parameters
    ----------
    shape : tuple of int
        ``(Z, Y, X)``, or ``(Y, X)`` for an image of one section.
    n_classes : int
        Classes of the network.
    in_memory_bytes : int
        Above this many pixels the arrays go to disk.

    Attributes
    ----------
    counts : (256,) int64 array
        Pixels per label value as the program last wrote them.
    folder : Path or None
        Where the arrays lie, None for memory. Whoever owns the store removes it.
    keeper : Keeper
        Keeps the user's pixels: an `OwnAnnotation`, or the workspace of the image.
    refused : int
        Pixels painted with a value that is not a class, which writes have taken back so far.
    sections : set of int
        Those of which anything was predicted, by whatever network.
    left : dict of int to int
        Pixels of these sections of which nothing was.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int, in_memory_bytes: int | None = None) -> None:
        limit = IN_MEMORY_BYTES if in_memory_bytes is None else in_memory_bytes
        self.shape = shape
        self.folder = new_scratch() if int(np.prod(shape, dtype=np.int64)) > limit else None
        self.labels = allocate(shape, np.uint8, self.folder, "labels")
        self.written = allocate(shape, np.uint8, self.folder, "written")
        self.under = allocate(shape, np.uint8, self.folder, "under")
        self.keeper: Keeper = OwnAnnotation(shape, n_classes, self.folder)
        self.counts = np.zeros(256, np.int64)
        self.counts[0] = np.prod(shape, dtype=np.int64)
        self.refused = 0
        self.sections: set[int] = set()
        self.left: dict[int, int] = {}
        self._covered: set[int] = set()  # sections in which `under` may hold something
        self._strokes: dict[int, NDArray[np.int64]] = {}

    def index(self, z: int, ys: slice, xs: slice) -> tuple[Any, ...]:
        """Index of a part of section `z` in the arrays."""
        return index_of(self.shape, z, ys, xs)

    def write(self, z: int, slices: Slices, new: Pixels) -> int:
        """Put a predicted tile into the labels, leaving the user's pixels as they are.

        Parameters
        ----------
        z : int
            Section.
        slices : (slice, slice)
            Rows and columns of the tile.
        new : (h, w) uint8
            Predicted labels.

        Returns
        -------
        int
            Pixels of the tile that were left to the user.
        """
        at = self.index(z, *slices)
        current, written = np.asarray(self.labels[at]), np.asarray(self.written[at])
        merged, kept = new, 0
        if (current != written).any() or self.keeper.holds(z):
            self._strokes.pop(z, None)  # now part of what is written, or taken back
            self.refused += self.keeper.absorb(z, slices, current, written)
            known = self.keeper.known(z, slices)
            kept = int(np.count_nonzero(known))
            merged = np.where(known, known, new)
            self._cover(z, at, known, new)
        elif z in self._covered:
            self.under[at] = 0
        left = self.left.get(z, self.shape[-2] * self.shape[-1])
        self.left[z] = left - int(np.count_nonzero(merged)) + int(np.count_nonzero(written))
        self.counts += np.bincount(merged.ravel(), minlength=256)
        self.counts -= np.bincount(written.ravel(), minlength=256)
        self.labels[at] = merged
        self.written[at] = merged
        self.keeper.settle(z, slices)
        if z not in self.sections and new.any():
            self.sections.add(z)
        return kept

    def _cover(self, z: int, at: tuple[Any, ...], known: Pixels, new: Pixels) -> None:
        if known.any() or z in self._covered:
            self.under[at] = np.where(known, np.where(new, new, NOTHING), np.uint8(0))
            self._covered.add(z)

    def predicted(self, z: int, slices: Slices) -> Pixels:
        """Return the last prediction of a part of a section without the user's pixels; 0 where there was none."""
        at = self.index(z, *slices)
        written = np.asarray(self.written[at])
        if z not in self._covered:
            return written
        under = np.asarray(self.under[at])
        return np.where(under == NOTHING, np.uint8(0), np.where(under, under, written))

    def count_strokes(self, z: int) -> int:
        """Count the strokes in section `z` that no write has met yet; returns the pixels that hold no class."""
        at = self.index(z, slice(None), slice(None))
        current, written = np.asarray(self.labels[at]), np.asarray(self.written[at])
        changed = current != written
        self._strokes[z] = np.bincount(current[changed], minlength=256) - np.bincount(written[changed], minlength=256)
        return int(np.count_nonzero(current[changed] > self.keeper.n_classes))

    def total_counts(self) -> NDArray[np.int64]:
        """Pixels per label value with the strokes that have been counted."""
        return self.counts + sum(self._strokes.values())


def pieces(slices: tuple[slice, slice]) -> list[tuple[slice, slice]]:
    """Cut a tile along the chunk grid, so that no single write holds the GUI thread for long."""
    ys, xs = slices
    return [(y, x) for y in _cuts(ys) for x in _cuts(xs)]


def _cuts(s: slice) -> list[slice]:
    edges = [s.start, *range((s.start // CHUNK + 1) * CHUNK, s.stop, CHUNK), s.stop]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
