"""`LabelsWriter`: what the writers of all formats have in common."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.io.units import VoxelSize


class LabelsWriter(ABC):
    """Writes labels section by section or tile by tile, in any order, and shows them only when complete.

    Made by `open_labels_writer`. Everything goes to a temporary name beside the target. As a context manager it
    closes, or aborts when the block raises. One thread at a time.

    Parameters
    ----------
    path : Path
        Final name.
    shape : tuple of three int
        (Z, Y, X).
    classes : ClassTable
        Its colours and names are stored.
    voxel_size : tuple of three float or None
        (z, y, x) in nm.
    name : str
        Name of the image inside the file.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], classes: ClassTable, voxel_size: VoxelSize, name: str
    ) -> None:
        self.path = path
        self.shape = shape
        self.classes = classes
        self.voxel_size = voxel_size
        self.name = name
        self.temporary = atomic.temporary_sibling(path)
        self._open = True
        try:
            self._begin()
        except OSError as error:
            atomic.remove(self.temporary)
            raise DrososegError(f"{path} cannot be written: {error.strerror or error}.") from error
        except BaseException:
            atomic.remove(self.temporary)
            raise

    def write(self, z: int, section: Any, slices: tuple[slice, slice] | None = None) -> None:
        """Write a section, or a region of it.

        Parameters
        ----------
        z : int
            Section, 0 to Z - 1.
        section : array-like of shape (h, w)
            Integers 0 to 255.
        slices : tuple of two slice or None
            Rows and columns of the region; None is the whole section. What is never written is 0, unlabelled.

        Raises
        ------
        DrososegError
            If a value does not fit, the region lies outside, or the disk is full.
        """
        if not self._open:
            raise DrososegError(f"{self.path} is already closed: open a new writer.")
        values = _as_uint8(np.asarray(section), self.path)
        ys, xs = slices or (slice(None), slice(None))
        y0, y1, _ = ys.indices(self.shape[1])
        x0, x1, _ = xs.indices(self.shape[2])
        if not 0 <= z < self.shape[0] or values.shape != (y1 - y0, x1 - x0):
            raise DrososegError(
                f"A region of shape {values.shape} does not fit into section {z} of {self.path} at rows {y0}-{y1}, "
                f"columns {x0}-{x1} of {self.shape}."
            )
        try:
            self._write(z, values, y0, x0)
        except OSError as error:
            raise DrososegError(f"{self.path} cannot be written: {error.strerror or error}.") from error

    def finish(self) -> Path:
        """Finish and sync under the temporary name, which is returned; `close` gives it the final one."""
        if self._open:
            self._open = False
            with self._removing_on_error():
                self._finish()
                atomic.sync(self.temporary)
        return self.temporary

    def close(self) -> Path:
        """Finish, sync and rename; returns the final path. A second call does nothing."""
        if self.finish().exists():
            with self._removing_on_error():
                atomic.put_in_place(self.temporary, self.path)
        return self.path

    @contextlib.contextmanager
    def _removing_on_error(self) -> Iterator[None]:
        """Leave nothing under the temporary name where the last steps fail."""
        try:
            yield
        except BaseException as error:
            atomic.remove(self.temporary)
            if isinstance(error, OSError):
                raise DrososegError(f"{self.path} cannot be written: {error.strerror or error}.") from error
            raise

    def abort(self) -> None:
        """Stop and leave nothing, if it is not closed; what had the final name before is untouched."""
        try:
            if self._open:
                self._open = False
                # On a full disk, closing the file fails once more on labels that nobody wants any longer.
                with contextlib.suppress(OSError):
                    self._release()
        finally:
            atomic.remove(self.temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _begin(self) -> None:
        """Create `temporary`."""

    @abstractmethod
    def _write(self, z: int, values: NDArray[np.uint8], y0: int, x0: int) -> None:
        """Write a region whose first pixel is (y0, x0)."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left and let go of the file."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the file without finishing it."""


def _as_uint8(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "uib":
        raise DrososegError(f"Labels of type {values.dtype} cannot be written to {path}: they must be integers.")
    if values.size and (int(values.min()) < 0 or int(values.max()) > 255):
        raise DrososegError(
            f"Label {values.max() if values.max() > 255 else values.min()} cannot be written to {path}: "
            "class labels are 0 to 255."
        )
    return values.astype(np.uint8)


def palette(classes: ClassTable) -> NDArray[np.uint8]:
    """Return RGB of the label values 0 to 255, shape (256, 3): 0 black, classes in their colours, others grey."""
    colors = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colors[0] = 0
    # Values without a class get a grey that is seen on black, and that differs between neighbours.
    colors[1:] = (96 + (np.arange(1, 256) * 53) % 160).astype(np.uint8)[:, None]
    for c in classes:
        colors[c.value] = c.rgb
    return colors
