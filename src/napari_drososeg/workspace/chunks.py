"""Label arrays on disk that hold only what was touched, and lose nothing when the program is killed.

Plain zarr v3 arrays, uint8 (Z, Y, X), which any zarr library reads. Their chunks are written here instead of through
zarr: to a temporary name, synced, renamed, so that after a crash at any instant each chunk is either the old or the
new one. A chunk that does not exist is all 0.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic

CHUNK = 512
"""Edge in px. A stroke touches one to four chunks, each of which is compressed and synced in milliseconds."""

LEVEL = 1
"""Of gzip: labels compress well, and this runs on the GUI thread."""

Key = tuple[int, int, int]
"""Section, chunk row, chunk column."""


class ChunkedLabels:
    """A sparse uint8 array (Z, Y, X) on disk, with its pixels counted.

    Parameters
    ----------
    path : Path
        Folder of the zarr array, ending in ``.zarr``; made where it does not exist.
    shape : tuple of int
        (Z, Y, X).
    owned : bool
        Whether nobody else writes there: then what a killed program left half-written is removed.

    Raises
    ------
    DrososegError
        If there is an array of another shape or kind, or the folder cannot be written to.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], *, owned: bool = False) -> None:
        self.path = path
        self.shape = shape
        self.chunk = (min(CHUNK, shape[1]), min(CHUNK, shape[2]))
        self._counts: dict[Key, NDArray[np.int64]] = {}
        if (path / "zarr.json").exists():
            self._check()
        else:
            self._create()
        for key in self._found(owned):
            self._counts[key] = _count(self._read_chunk(key))

    @property
    def sections(self) -> list[int]:
        """Sections that hold anything, in order."""
        return sorted({z for z, _, _ in self._counts})

    def keys(self, z: int) -> list[Key]:
        """Return the chunks of section `z` that hold anything, in reading order."""
        return sorted(key for key in self._counts if key[0] == z)

    def counts(self, z: int | None = None) -> NDArray[np.int64]:
        """Count the pixels of each value.

        Parameters
        ----------
        z : int, optional
            Section; all unless given.

        Returns
        -------
        ndarray of int64, (256,)
            By value; entry 0 is not kept and always 0.
        """
        total = np.zeros(256, np.int64)
        for key, counts in self._counts.items():
            if z is None or key[0] == z:
                total += counts
        return total

    def box(self, key: Key) -> tuple[slice, slice]:
        """Return the rows and columns of a chunk, clipped to the section."""
        (height, width), (_, n_y, n_x) = self.chunk, self.shape
        _, row, column = key
        return (
            slice(row * height, min(n_y, (row + 1) * height)),
            slice(column * width, min(n_x, (column + 1) * width)),
        )

    def keys_of(self, z: int, ys: slice, xs: slice) -> Iterator[tuple[Key, tuple[slice, slice], tuple[slice, slice]]]:
        """Yield the chunks under a region, existing or not: key, its part of the region, and of the chunk.

        Parameters
        ----------
        z : int
            Section.
        ys, xs : slice
            Region in px, with start and stop inside the section.
        """
        height, width = self.chunk
        for row in range(ys.start // height, -(-ys.stop // height)):
            for column in range(xs.start // width, -(-xs.stop // width)):
                y0, y1 = max(ys.start, row * height), min(ys.stop, (row + 1) * height)
                x0, x1 = max(xs.start, column * width), min(xs.stop, (column + 1) * width)
                outer = slice(y0 - ys.start, y1 - ys.start), slice(x0 - xs.start, x1 - xs.start)
                inner = slice(y0 - row * height, y1 - row * height), slice(x0 - column * width, x1 - column * width)
                yield (z, row, column), outer, inner

    def read(self, z: int, ys: slice = slice(None), xs: slice = slice(None)) -> NDArray[np.uint8]:
        """Read a region of a section.

        Returns
        -------
        ndarray of uint8, (h, w)
            A copy.
        """
        ys, xs = (slice(*s.indices(n)) for s, n in zip((ys, xs), self.shape[1:], strict=True))
        out = np.zeros((ys.stop - ys.start, xs.stop - xs.start), np.uint8)
        for key, outer, inner in self.keys_of(z, ys, xs):
            if key in self._counts:
                out[outer] = self._read_chunk(key)[inner]
        return out

    def write(self, z: int, ys: slice, xs: slice, values: NDArray[np.uint8]) -> None:
        """Write a region of a section; on return it is on the disk.

        Parameters
        ----------
        z : int
            Section.
        ys, xs : slice
            Region in px.
        values : ndarray of uint8, (h, w)
            Only chunks that change are written.

        Raises
        ------
        DrososegError
            If the disk is full; chunks written before stay.
        """
        ys, xs = (slice(*s.indices(n)) for s, n in zip((ys, xs), self.shape[1:], strict=True))
        for key, outer, inner in self.keys_of(z, ys, xs):
            part = values[outer]
            if key not in self._counts and not part.any():
                continue
            chunk = self._read_chunk(key) if key in self._counts else np.zeros(self.chunk, np.uint8)
            if np.array_equal(chunk[inner], part):
                continue
            chunk[inner] = part
            self._write_chunk(key, chunk)

    def _file(self, key: Key) -> Path:
        return self.path.joinpath("c", *map(str, key))

    def _read_chunk(self, key: Key) -> NDArray[np.uint8]:
        file = self._file(key)
        try:
            return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8).reshape(self.chunk).copy()
        except FileNotFoundError:  # the process that paints has just emptied it
            return np.zeros(self.chunk, np.uint8)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise DrososegError(
                f"'{file}' is damaged ({error}): restore it from a backup, or delete it to lose this part."
            ) from error

    def _write_chunk(self, key: Key, chunk: NDArray[np.uint8]) -> None:
        counts = _count(chunk)
        if counts.any():
            atomic.write_bytes(self._file(key), gzip.compress(chunk.tobytes(), LEVEL, mtime=0))
            self._counts[key] = counts
        else:
            self._file(key).unlink(missing_ok=True)
            self._counts.pop(key, None)

    def _found(self, owned: bool) -> Iterator[Key]:
        """Yield the chunks on disk."""
        for file in (self.path / "c").glob("*/*/*"):
            if file.name.startswith("."):
                if owned:
                    file.unlink(missing_ok=True)
            elif all(part.isdecimal() for part in file.parts[-3:]):
                z, row, column = map(int, file.parts[-3:])
                yield z, row, column

    def _create(self) -> None:
        import zarr
        from zarr.codecs import GzipCodec

        with atomic.replacing(self.path) as temporary:
            zarr.create_array(
                temporary,
                shape=self.shape,
                chunks=(1, *self.chunk),
                dtype=np.uint8,
                fill_value=0,
                compressors=GzipCodec(level=LEVEL),
                dimension_names=("z", "y", "x"),
                zarr_format=3,
            )

    def _check(self) -> None:
        import zarr

        try:
            array: Any = zarr.open_array(self.path, mode="r")
            found = (tuple(array.shape), str(array.dtype), tuple(array.chunks))
        except Exception as error:  # zarr raises errors of many kinds on damaged metadata
            raise DrososegError(f"'{self.path}' cannot be read ({error}): restore it from a backup.") from error
        if found != (self.shape, "uint8", (1, *self.chunk)):
            raise DrososegError(
                f"'{self.path}' is {found[1]} of the shape {found[0]}, not uint8 of {self.shape}: it belongs to "
                "another image."
            )


def _count(chunk: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.bincount(chunk.ravel(), minlength=256)
    counts[0] = 0
    return counts
