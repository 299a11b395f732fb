"""The stack: one image volume (Z, Y, X) with what is known about its space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io.grey import RGB_NOTICE, Grey
from napari_drososeg.io.lazy import LazyArray
from napari_drososeg.io.units import UNKNOWN_VOXEL_SIZE, VoxelSize


@dataclass(frozen=True)
class Stack:
    """A volume of sections that is read when it is sliced.

    Parameters
    ----------
    data : array-like of shape (Z, Y, X)
        Integers or floats. Sliced lazily: ``np.asarray(stack.data[z, y0:y1, x0:x1])``. Values are the file's own;
        NaN in float data is passed on (prediction refuses it unless told how to fill it).
    name : str
        For layers and files.
    voxel_size : tuple of three float or None
        (z, y, x) in nm. None is unknown; nothing is ever made up.
    path : Path or None
        Where it was read from.
    notices : tuple of str
        What was changed while reading ("colour was converted to grey").
    classes : ClassTable or None
        Set where the file says that it holds labels written by this package.
    """

    data: Any
    name: str
    voxel_size: VoxelSize = UNKNOWN_VOXEL_SIZE
    path: Path | None = None
    notices: tuple[str, ...] = ()
    classes: ClassTable | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = self.data.shape
        return int(z), int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, in the byte order of this machine."""
        native: np.dtype[Any] = np.dtype(self.data.dtype).newbyteorder("=")
        return native

    @property
    def n_sections(self) -> int:
        """Z."""
        return self.shape[0]

    @property
    def pixel_size(self) -> float | None:
        """Mean of the y and x voxel size in nm; None where one of them is unknown."""
        _, y, x = self.voxel_size
        return None if y is None or x is None else (y + x) / 2

    def read(self, z: int, ys: slice = slice(None), xs: slice = slice(None)) -> NDArray[Any]:
        """Read one section or a region of it.

        Parameters
        ----------
        z : int
            Section, 0 to Z - 1.
        ys, xs : slice
            Region on the image grid.

        Returns
        -------
        ndarray of shape (h, w)
            In memory, the stack's dtype.

        Raises
        ------
        DrososegError
            If the file is damaged there.
        IndexError
            If there is no such section.
        """
        if not 0 <= z < self.n_sections:
            raise IndexError(f"section {z} of {self.n_sections}")
        # np.asarray computes a dask array and loads a memory map.
        region = np.asarray(self.data[z, ys, xs])
        return region if region.dtype == self.dtype else region.astype(self.dtype)


class _Wrapped(LazyArray):
    """An array of the user whose leading axes, colours or missing z axis are put right while reading."""

    def __init__(self, array: Any, *, rgb: bool) -> None:
        grid = array.shape[:-1] if rgb else array.shape
        extra = len(grid) - 3
        if len(grid) < 2 or any(n != 1 for n in grid[: max(0, extra)]):
            raise DrososegError(
                f"An array of shape {tuple(array.shape)} is not a stack (Z, Y, X): pick one time point and one channel."
            )
        dtype = np.uint8 if array.dtype == bool else array.dtype
        super().__init__((1 if extra < 0 else grid[-3], grid[-2], grid[-1]), dtype)
        self._array = array
        self._lead = (0,) * max(0, extra)
        self._flat = extra < 0
        self._grey = Grey("colour") if rgb else Grey()

    def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[Any]:
        where = (ys, xs) if self._flat else (*self._lead, z, ys, xs)
        return self._grey(np.asarray(self._array[where]))


def as_stack(
    array: Any,
    *,
    name: str = "stack",
    voxel_size: VoxelSize = UNKNOWN_VOXEL_SIZE,
    rgb: bool = False,
    path: Path | None = None,
) -> Stack:
    """Make a stack of an array that is already there, without copying or reading it.

    Parameters
    ----------
    array : array-like, sequence of arrays, or Stack
        2D (Y, X) or 3D (Z, Y, X): numpy, dask, zarr, memory map, anything with ``shape``, ``dtype`` and basic slicing.
        Further leading axes must have length 1. A sequence of arrays of one shape are sections; one of smaller and
        smaller arrays is a multiscale image, of which the first is used.
    name : str
        Name of the stack.
    voxel_size : tuple of three float or None
        (z, y, x) in nm, None where unknown.
    rgb : bool
        Whether a last axis of length 3 or 4 holds colours, which become grey.
    path : Path or None
        Where the array came from.

    Returns
    -------
    Stack

    Raises
    ------
    DrososegError
        If the array is empty, complex or text, or has time points or channels.
    """
    if isinstance(array, Stack):
        return array
    if not hasattr(array, "shape") or not hasattr(array, "dtype") or _is_multiscale(array):
        array = array[0] if _is_multiscale(array) else np.asarray(array)
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "buif":
        raise DrososegError(f"'{name}' contains values of type {dtype}; a stack needs integers or real numbers.")
    if 0 in array.shape:
        raise DrososegError(f"'{name}' is empty: its shape is {tuple(array.shape)}.")
    plain = not rgb and len(array.shape) == 3 and dtype.kind != "b" and dtype.isnative
    data = array if plain else _Wrapped(array, rgb=rgb)
    notices = (f"{name}: {RGB_NOTICE}",) if rgb else ()
    return Stack(data, name, tuple(voxel_size), path, notices)  # type: ignore[arg-type]


def _is_multiscale(array: Any) -> bool:
    # napari's MultiScaleData is a Sequence that has a shape and a dtype of its own.
    if not isinstance(array, Sequence) or len(array) == 0 or not hasattr(array[0], "shape") or array[0].ndim < 2:
        return False
    return len(array) == 1 or np.shape(array[1]) != array[0].shape
