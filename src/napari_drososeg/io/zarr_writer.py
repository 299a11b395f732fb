"""Labels as OME-Zarr 0.5 (zarr v3) with levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.io.marks import KEY, make_mark
from napari_drososeg.io.units import VoxelSize
from napari_drososeg.io.writing import LabelsWriter

if TYPE_CHECKING:
    import zarr

CHUNK = 1024
"""Longest edge of a chunk in y and x."""

SMALLEST_LEVEL = 512
"""Levels are added until the longest edge in y and x is at most this."""


def level_shapes(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return the (Z, Y, X) of each level of an image; every level keeps every second pixel in y and x."""
    z, y, x = shape
    found, step = [shape], 1
    while max(found[-1][1:]) > SMALLEST_LEVEL:
        step *= 2
        found.append((z, -(-y // step), -(-x // step)))
    return found


def label_attributes(name: str, classes: ClassTable, voxel_size: VoxelSize, n_levels: int) -> dict[str, Any]:
    """Return the attributes of a multiscale label image: OME-Zarr 0.5, and our own mark.

    Parameters
    ----------
    name : str
        Of the image.
    classes : ClassTable
        Its colours and names are stored.
    voxel_size : tuple of three float or None
        (z, y, x) in nm.
    n_levels : int
        Arrays ``"0"``, ``"1"``, ...; each keeps every second pixel in y and x of the one before.
    """
    known = all(size is not None for size in voxel_size[1:])
    scale = [1.0 if size is None else size for size in voxel_size]
    axes: list[dict[str, str]] = []
    for axis, size in zip("zyx", voxel_size, strict=True):
        unit = {"unit": "nanometer"} if size is not None and known else {}
        axes.append({"name": axis, "type": "space"} | unit)
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [scale[0], scale[1] * 2**k, scale[2] * 2**k]},
            ],
        }
        for k in range(n_levels)
    ]
    colors = [{"label-value": c.value, "rgba": [*c.rgb, 255]} for c in classes]
    properties = [{"label-value": c.value, "class": c.name} for c in classes]
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "nearest"}],
            "image-label": {"colors": colors, "properties": properties},
        },
        KEY: make_mark(classes, voxel_size),
    }


class ZarrWriter(LabelsWriter):
    """A multiscale label image; each level keeps every second pixel in y and x of the one before.

    Chunks are (1, 1024, 1024). Every chunk is written, also of zeros, so a chunk that is missing later was lost.
    """

    _levels: list[zarr.Array[Any]]

    def _begin(self) -> None:
        import zarr

        group = zarr.create_group(str(self.temporary), zarr_format=3)
        self._levels = []
        for shape in level_shapes(self.shape):
            chunk = (1, min(CHUNK, shape[1]), min(CHUNK, shape[2]))
            level = group.create_array(
                str(len(self._levels)),
                shape=shape,
                chunks=chunk,
                dtype=np.uint8,
                fill_value=0,
                dimension_names=("z", "y", "x"),
                config={"write_empty_chunks": True},
            )
            self._levels.append(level)
        group.attrs.update(label_attributes(self.name, self.classes, self.voxel_size, len(self._levels)))
        self._written: set[tuple[int, int, int]] = set()

    def _write(self, z: int, values: NDArray[np.uint8], y0: int, x0: int) -> None:
        for k, level in enumerate(self._levels):
            step = 2**k
            # The first pixel of this region that lies on the grid of the level.
            part = values[-y0 % step :: step, -x0 % step :: step]
            if not part.size:
                continue
            y, x = -(-y0 // step), -(-x0 // step)
            level[z, y : y + part.shape[0], x : x + part.shape[1]] = part
            for cy in range(y // level.chunks[1], -(-(y + part.shape[0]) // level.chunks[1])):
                for cx in range(x // level.chunks[2], -(-(x + part.shape[1]) // level.chunks[2])):
                    self._written.add((k * self.shape[0] + z, cy, cx))

    def _finish(self) -> None:
        """Write the chunks nobody wrote, so that all are there."""
        for k, level in enumerate(self._levels):
            _, height, width = level.chunks
            for z in range(self.shape[0]):
                for cy in range(-(-level.shape[1] // height)):
                    for cx in range(-(-level.shape[2] // width)):
                        if (k * self.shape[0] + z, cy, cx) not in self._written:
                            level[z, cy * height : (cy + 1) * height, cx * width : (cx + 1) * width] = 0
        self._release()

    def _release(self) -> None:
        self._levels = []
