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
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY_BYTES = 256 * 2**20
"""Label arrays above this size live in a zarr on disk."""
CHUNK = 1024
"""Edge in pixels of a chunk of the arrays on disk, and of the pieces in which results are written."""


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


def allocate(shape: tuple[int, ...], dtype: Any, folder: Path | None, name: str) -> Any:
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
    """
    if folder is None:
        return np.zeros(shape, dtype)
    import zarr
    from zarr.codecs import BloscCodec

    # lz4 at its lightest: these are written and read on the GUI thread
    return zarr.create_array(
        folder / f"{name}.zarr",
        shape=shape,
        chunks=(*(1 for _ in shape[:-2]), *(min(CHUNK, n) for n in shape[-2:])),
        dtype=dtype,
        compressors=BloscCodec(cname="lz4", clevel=1),
        fill_value=0,
        overwrite=True,
    )


class LabelsStore:
    """Labels of one image by one network, with the user's own pixels kept apart.

    Three arrays of the image's shape: `labels` is what the layer shows and the user paints on; `written` is what the
    program last put there; `annotation` holds what the user painted (0: nothing). What differs between the first
    two is the user's: class values become annotation, 0 (erased) gives the pixel back to the network, and a stroke
    that was undone leaves no difference and so no trace. Values above the last class are no class: such pixels count
    as not painted, and the next write puts back what belongs there.

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
    refused : int
        Pixels painted with a value above `n_classes` that writes have taken back so far.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int, in_memory_bytes: int | None = None) -> None:
        limit = IN_MEMORY_BYTES if in_memory_bytes is None else in_memory_bytes
        self.shape = shape
        self.n_classes = n_classes
        self.folder = new_scratch() if int(np.prod(shape, dtype=np.int64)) > limit else None
        self.labels = allocate(shape, np.uint8, self.folder, "labels")
        self.written = allocate(shape, np.uint8, self.folder, "written")
        self.annotation = allocate(shape, np.uint8, self.folder, "annotation")
        self.counts = np.zeros(256, np.int64)
        self.counts[0] = np.prod(shape, dtype=np.int64)
        self.refused = 0
        self._annotated_sections: set[int] = set()
        self._strokes: dict[int, NDArray[np.int64]] = {}

    def index(self, z: int, ys: slice, xs: slice) -> tuple[Any, ...]:
        """Index of a part of section `z` in the arrays."""
        return (ys, xs) if len(self.shape) == 2 else (z, ys, xs)

    def write(self, z: int, slices: tuple[slice, slice], new: NDArray[np.uint8]) -> int:
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
        current = np.asarray(self.labels[at])
        written = np.asarray(self.written[at])
        changed = current != written
        has_strokes = bool(changed.any())
        if has_strokes:
            self._strokes.pop(z, None)  # now part of what is written, or taken back
            foreign = changed & (current > self.n_classes)
            n_foreign = int(np.count_nonzero(foreign))
            if n_foreign:
                self.refused += n_foreign
                changed &= ~foreign
                has_strokes = bool(changed.any())
        if not has_strokes and z not in self._annotated_sections:
            merged, kept = new, 0
        else:
            annotation = np.where(changed, current, np.asarray(self.annotation[at]))
            if has_strokes:
                self.annotation[at] = annotation
                self._annotated_sections.add(z)
            mine = annotation != 0
            merged, kept = np.where(mine, annotation, new), int(np.count_nonzero(mine))
        self.counts += np.bincount(merged.ravel(), minlength=256)
        self.counts -= np.bincount(written.ravel(), minlength=256)
        self.labels[at] = merged
        self.written[at] = merged
        return kept

    def count_strokes(self, z: int) -> int:
        """Count the strokes in section `z` that no write has met yet; returns the pixels that hold no class."""
        at = self.index(z, slice(None), slice(None))
        current, written = np.asarray(self.labels[at]), np.asarray(self.written[at])
        changed = current != written
        self._strokes[z] = np.bincount(current[changed], minlength=256) - np.bincount(written[changed], minlength=256)
        return int(np.count_nonzero(current[changed] > self.n_classes))

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
