"""Sections of an image that is in no file, copied for a training process to read."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, as_stack
from napari_drososeg.workspace.documents import read_json, write_json
from napari_drososeg.workspace.identity import ImageIdentity

CHUNK = 1024


class ImageCopy:
    """Some sections of an image, in ``image.zarr`` of its workspace; the others are 0 there.

    Parameters
    ----------
    folder : Path
        Of the workspace.
    image : ImageIdentity
        The image.
    """

    def __init__(self, folder: Path, image: ImageIdentity) -> None:
        self._array, self._list, self._image = folder / "image.zarr", folder / "image.json", image
        self._adding = threading.Lock()

    @property
    def sections(self) -> list[int]:
        """Sections that are there whole."""
        try:
            return [int(z) for z in read_json(self._list)["sections"]]
        except (DrososegError, KeyError, TypeError, ValueError):
            return []

    def add(self, stack: Stack, sections: Iterable[int]) -> None:
        """Copy sections that are not there yet; threads do it one after the other.

        Raises
        ------
        DrososegError
            If the disk is full.
        """
        with self._adding:
            self._add(stack, sections)

    def _add(self, stack: Stack, sections: Iterable[int]) -> None:
        import zarr

        there = self.sections
        missing = sorted(set(sections) - set(there))
        if not missing:
            return
        try:
            if there:
                array: Any = zarr.open_array(self._array, mode="r+")
            else:
                array = zarr.create_array(
                    self._array,
                    shape=self._image.shape,
                    chunks=(1, *(min(CHUNK, n) for n in self._image.shape[1:])),
                    dtype=self._image.dtype,
                    fill_value=0,
                    dimension_names=("z", "y", "x"),
                    zarr_format=3,
                    overwrite=True,
                )
            for z in missing:
                array[z] = stack.read(z)
        except OSError as error:
            raise DrososegError(f"Cannot write '{self._array}': {error.strerror or error}.") from error
        write_json(self._list, {"sections": sorted({*there, *missing})})

    def stack(self) -> Stack | None:
        """Return the copied sections as a stack; None if there are none."""
        if not self.sections:
            return None
        import zarr

        array = zarr.open_array(self._array, mode="r")
        return as_stack(array, name=self._image.name, voxel_size=self._image.voxel_size)
