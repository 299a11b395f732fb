"""Arrays (Z, Y, X) that read from a file only what is asked for."""

from __future__ import annotations

import operator
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Key = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]

_CACHE_BYTES = 128 * 2**20
_WHOLE_SECTION_BYTES = 64 * 2**20


class LazyArray(ABC):
    """What napari, dask and numpy need of an array, on top of one method that reads a region of one section.

    Parameters
    ----------
    shape : tuple of three int
        (Z, Y, X).
    dtype : DTypeLike
        Of what is returned, in the byte order of this machine.
    """

    ndim = 3

    def __init__(self, shape: tuple[int, int, int], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")

    @abstractmethod
    def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[Any]:
        """Read one region.

        Parameters
        ----------
        z : int
            Section, 0 to Z - 1.
        ys, xs : slice
            Inside the section, start and stop set, step 1.

        Returns
        -------
        ndarray of shape (h, w)
            Own memory, dtype `dtype`.
        """

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes when read whole."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Key) -> Any:
        zs, ys, xs = self._three(key)
        sections = _indices(zs, self.shape[0])
        rows, columns = (_indices(k, n) for k, n in zip((ys, xs), self.shape[1:], strict=True))
        out = np.empty((len(sections), len(rows), len(columns)), self.dtype)
        if out.size:
            row_box, row_pick = _box(rows)
            column_box, column_pick = _box(columns)
            for i, z in enumerate(sections):
                out[i] = self.read_region(z, row_box, column_box)[row_pick, column_pick]
        return out[tuple(slice(None) if isinstance(k, slice) else 0 for k in (zs, ys, xs))]

    def _three(self, key: Key) -> tuple[int | slice, int | slice, int | slice]:
        keys = key if isinstance(key, tuple) else (key,)
        if keys.count(Ellipsis) > 1 or len([k for k in keys if k is not Ellipsis]) > 3:
            raise IndexError(f"too many indices for a stack of sections: {key!r}")
        if Ellipsis not in keys:
            keys = (*keys, Ellipsis)
        at = keys.index(Ellipsis)
        filled = (*keys[:at], *[slice(None)] * (4 - len(keys)), *keys[at + 1 :])
        z, y, x = (k if isinstance(k, slice) else operator.index(k) for k in filled)  # type: ignore[arg-type]
        return z, y, x


def _indices(key: int | slice, length: int) -> range:
    if isinstance(key, slice):
        return range(*key.indices(length))
    index = key + length if key < 0 else key
    if not 0 <= index < length:
        raise IndexError(f"index {key} is out of bounds for an axis of size {length}")
    return range(index, index + 1)


def _box(indices: range) -> tuple[slice, slice]:
    """Split a range into the box to read and what to pick of it."""
    low, high = min(indices[0], indices[-1]), max(indices[0], indices[-1])
    # A negative step ends before 0, which as a slice must be written None.
    pick = slice(None, None, indices.step)
    return slice(low, high + 1), pick


class Section(Protocol):
    """One image plane in a file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what `read` returns."""

    @property
    def compressed(self) -> bool:
        """Whether reading a part costs about as much as reading all, unless the section is very large."""

    @property
    def whole_only(self) -> bool:
        """Whether reading a part costs as much as reading all, however large the section is."""

    def read(self, ys: slice, xs: slice) -> NDArray[Any]:
        """Return the region as a new array (h, w)."""


class SectionArray(LazyArray):
    """Sections of equal shape and dtype, each in a file; a few decoded ones are kept.

    Parameters
    ----------
    sections : sequence of Section
        At least one.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        super().__init__((len(sections), *sections[0].shape), sections[0].dtype)
        self.sections = tuple(sections)
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[Any]:
        """See `LazyArray.read_region`. Safe to call from several threads."""
        section = self.sections[z]
        n_bytes = self.nbytes // self.shape[0]
        large = n_bytes > _WHOLE_SECTION_BYTES
        if not section.whole_only and (large or not section.compressed):
            return section.read(ys, xs)
        with self._lock:
            whole = self._kept.pop(z, None)
            if whole is None:
                whole = section.read(slice(0, self.shape[1]), slice(0, self.shape[2]))
            self._kept[z] = whole
            while len(self._kept) > max(1 if large else 2, min(8, _CACHE_BYTES // max(1, n_bytes))):
                self._kept.popitem(last=False)
        return whole[ys, xs].copy()

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel to other processes, and what is kept here is read again there.
        return {**self.__dict__, "_kept": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
